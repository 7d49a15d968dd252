//! What keeps people's things to them: text from outside that no terminal obeys, addresses whose passwords are neither shown nor told to
//! others, files that nobody else reads, and one daemon to a directory.

pub mod address;
pub mod harmless;
pub mod lock;
pub mod private;
pub mod regular;
pub mod secret;
