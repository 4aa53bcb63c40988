//! Files that are sent to clients: opened and read without ever blocking a worker.

pub(crate) mod body;
pub(crate) mod kept;
pub(crate) mod open;
pub(crate) mod opened;
