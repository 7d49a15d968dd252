//! The `gemmad` command.

fn main() {}
