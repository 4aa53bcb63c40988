//! Another process takes over: both sides, and what is said between them.

pub(crate) mod arrive;
pub(crate) mod batch;
pub(crate) mod leave;
pub(crate) mod new;
pub(crate) mod old;
pub(crate) mod origin;
pub(crate) mod protocol;
pub(crate) mod retire;
