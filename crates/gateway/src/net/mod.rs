//! Sockets and time: what connections to clients and to backends have in common.

pub mod budget;
pub mod clock;
pub mod error;
pub mod limits;
pub mod options;
pub mod patience;
pub mod shortage;
pub mod stream;
pub mod sweep;
