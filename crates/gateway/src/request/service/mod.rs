//! What the gateway can do by itself.

pub(super) mod console;
pub(super) mod echo;
pub(super) mod files;
pub(super) mod redirect;
pub(super) mod respond;
