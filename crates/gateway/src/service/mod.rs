//! What the gateway can do by itself.

pub mod console;
pub mod echo;
