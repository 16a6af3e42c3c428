"""DICOM on the wire: our C-STORE SCP, and us as a client by DIMSE and DICOMweb."""
