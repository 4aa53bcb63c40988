//! The gateway as operators see it, and how they change it.

pub mod admin;
pub mod control;
pub mod metrics;
pub mod overview;
pub mod reserve;
pub mod table;
