"""DICOM on the network: the C-STORE SCP, and the gateway as a client by DIMSE and DICOMweb."""
