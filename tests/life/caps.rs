//! What bounds an account beside its credits.
