//! Files that hold what people said and switched, and the directories that they are in: for the daemon's user only, whatever the
//! umask is. What lies there with wider permissions is closed.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Of a file: its user reads and writes.
const FILE: u32 = 0o600;
/// Of a directory.
const DIRECTORY: u32 = 0o700;
/// Everybody else.
const OTHERS: u32 = 0o077;
/// Who may write here may replace files of other users, too, unless the bit after it is set.
const WRITABLE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Opens a file to read and write it, or makes it; what it holds stays. It is nobody else's to read then, even if it was there.
/// `flags` are further ones of opening; whatever stands in the file's place is not waited for.
///
/// # Errors
/// The system's, of opening; or it is no file.
pub fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    close(path, found.permissions().mode(), FILE, |mode| {
        file.set_permissions(mode)
    });
    Ok(file)
}

/// Makes a file to be written beside another that it will replace; what lies there, of whatever kind, was left by a process that
/// was killed.
///
/// # Errors
/// The system's.
pub fn create_anew(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Follows no link.
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(FILE)
        .open(path)
}

/// Closes a file to other users, where it is a file and open to them, and logs that.
pub fn tighten(path: &Path) {
    let Ok(found) = path.symlink_metadata() else {
        return;
    };
    if found.is_file() {
        close(path, found.permissions().mode(), FILE, |mode| {
            std::fs::set_permissions(path, mode)
        });
    }
}

/// Makes a directory, and those above it that are missing, for this user only. One that is there is closed to others if it holds
/// nothing but files that this program keeps, by the names that are `ours`: others may be meant for others.
///
/// # Errors
/// It cannot be made.
pub fn directory(path: &Path, ours: impl Fn(&str) -> bool) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Ok(()); // of a bare name: where the process is
    }
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY)
        .create(path)?;
    let mode = path.metadata()?.permissions().mode();
    if mode & OTHERS == 0 || mode & STICKY != 0 {
        return Ok(());
    }
    let mut entries = std::fs::read_dir(path)?.flatten();
    if entries.all(|entry| entry.file_name().to_str().is_some_and(&ours)) {
        close(path, mode, DIRECTORY, |mode| {
            std::fs::set_permissions(path, mode)
        });
    } else if mode & WRITABLE != 0 {
        log::warn!(
            "other users may write in {} (mode {:04o}), and so replace what is kept there: chmod go-w {0}",
            path.display(),
            mode & 0o7777,
        );
    }
    Ok(())
}

/// Sets the mode `wanted` where others may do something, and says so.
fn close(path: &Path, mode: u32, wanted: u32, set: impl FnOnce(Permissions) -> io::Result<()>) {
    if mode & OTHERS == 0 {
        return;
    }
    let (shown, was) = (path.display(), mode & 0o7777);
    match set(Permissions::from_mode(wanted)) {
        Ok(()) => {
            log::warn!("{shown} was open to other users (mode {was:04o}): it is {wanted:04o} now");
        }
        Err(error) => log::warn!(
            "{shown} is open to other users (mode {was:04o}) and cannot be closed: {error}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn files_and_directories_are_closed_but_those_of_others_are_left() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("new/kept");
        directory(&kept, |_| false).unwrap();
        assert_eq!((mode(&kept), mode(kept.parent().unwrap())), (0o700, 0o700));
        let file = kept.join("file");
        std::fs::write(&file, b"said").unwrap();
        set(&file, 0o664);
        set(&kept, 0o775);
        open(&file, OFlags::empty()).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"said");
        assert_eq!(mode(&file), 0o600);
        // Something of somebody else: it stays as it is.
        directory(&kept, |name| name == "other").unwrap();
        assert_eq!(mode(&kept), 0o775);
        directory(&kept, |name| name == "file").unwrap();
        assert_eq!(mode(&kept), 0o700);
        // Shared by design.
        set(&kept, 0o1777);
        directory(&kept, |_| true).unwrap();
        assert_eq!(mode(&kept), 0o1777);

        // A link in the place of a file to be written is no way to another file.
        let (link, target) = (kept.join("link"), kept.join("target"));
        std::fs::write(&target, b"dear").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        create_anew(&link).unwrap();
        assert!(link.symlink_metadata().unwrap().is_file());
        assert_eq!(
            (mode(&link), std::fs::read(&target).unwrap()),
            (0o600, b"dear".to_vec())
        );
        set(&target, 0o644);
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        tighten(&link);
        assert_eq!(mode(&target), 0o644);
    }
}
