//! What the gateway can do by itself.

pub(super) mod console;
pub(super) mod echo;
pub(super) mod redirect;
pub(super) mod respond;
