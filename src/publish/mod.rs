//! Where reports go, and where requests from outside come in.

pub mod mqtt;
