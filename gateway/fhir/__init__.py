"""FHIR R4: a digitized page as resources and Bundles; how they are sent is `gateway.delivery.fhir`."""
