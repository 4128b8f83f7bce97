"""Files on their way into IPFS, as any node reads them."""
