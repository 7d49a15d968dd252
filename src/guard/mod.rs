//! What keeps people's things to them: text from outside that no terminal obeys, files that nobody else reads, and one daemon
//! to a directory.

pub mod harmless;
pub mod lock;
pub mod private;
