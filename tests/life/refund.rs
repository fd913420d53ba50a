//! Refunds by the operator.
