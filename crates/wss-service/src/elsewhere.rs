//! The way to the other processes of a cluster: how channels and messages look, and what waits for the engine.

#[cfg(feature = "cluster")]
mod channel;
#[cfg(feature = "cluster")]
mod line;
mod name;
#[cfg(feature = "cluster")]
mod publisher;

pub(crate) use self::name::Name;
#[cfg(feature = "cluster")]
pub(crate) use self::{
    channel::{Channel, Channels, NAME_MAX},
    line::{BadLine, decode, line_max, own_mark},
    publisher::{Command, Publish, Published, Publisher},
};
