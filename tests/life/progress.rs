//! Progress, as a handler says it and a caller sees it.
