//! Metadata and tags, and finding jobs by them.
