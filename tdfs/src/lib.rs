//! TDFS.
