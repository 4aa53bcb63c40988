//! Sockets and time: what connections to clients and to backends have in common.

pub(crate) mod budget;
pub(crate) mod clock;
pub(crate) mod error;
pub(crate) mod fields;
pub(crate) mod limits;
pub(crate) mod listening;
pub(crate) mod networks;
pub(crate) mod options;
pub(crate) mod patience;
pub(crate) mod shortage;
pub(crate) mod stop;
pub(crate) mod stream;
pub(crate) mod sweep;
