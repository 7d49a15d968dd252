//! gemmad.toml as people wrote it: values that change in it while everything else stays, and the file, replaced whole or not at all.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

/// A file that nobody else is to read.
const PRIVATE: u32 = 0o600;
/// What the daemon's group may at most do with a file that holds a password.
const GROUP_READS: u32 = 0o640;

/// The section of a name, which is made where there is none.
///
/// # Errors
/// Something else has that name.
pub(super) fn section<'a>(
    document: &'a mut DocumentMut,
    name: &str,
) -> Result<&'a mut dyn TableLike, String> {
    let section = document.entry(name);
    let section = section.or_insert_with(|| Item::Table(Table::new()));
    section
        .as_table_like_mut()
        .ok_or_else(|| format!("[{name}] is no section there"))
}

/// Sets a value; a comment behind the old one stays.
pub(super) fn set(section: &mut dyn TableLike, key: &str, value: impl Into<Value>) {
    let mut value = value.into();
    match section.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => drop(section.insert(key, Item::Value(value))),
    }
}

/// Replaces a file, whole or not at all; a link stays one. Owner, group and mode stay as they are, since the daemon's user has to read
/// it; a new one is for its maker only.
///
/// # Errors
/// The system's: what was there is there still.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = target(path)?;
    let like = path.metadata().ok();
    let like = like.map(|found| (found.uid(), found.gid(), found.mode()));
    put(&path, text, like)
}

/// The same of a file with a password, which is for those who may read the file `beside` it.
///
/// # Errors
/// As of [`replace`].
pub(super) fn replace_private(path: &Path, text: &str, beside: &Path) -> io::Result<()> {
    let like = beside.metadata().ok();
    let like = like.map(|found| (found.uid(), found.gid(), found.mode() & GROUP_READS));
    put(&target(path)?, text, like)
}

/// Where a file lies, whatever links lead there.
fn target(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            Ok(path.to_owned())
        }
        found => found,
    }
}

fn put(path: &Path, text: &str, like: Option<(u32, u32, u32)>) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    let mine = file.as_file().metadata()?;
    let (user, group, mode) = like.unwrap_or((mine.uid(), mine.gid(), PRIVATE));
    if (user, group) != (mine.uid(), mine.gid()) {
        fchown(file.as_file(), Some(user), Some(group))?;
    }
    file.as_file()
        .set_permissions(Permissions::from_mode(mode & 0o7777))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_keeps_its_mode_and_its_link_and_a_password_is_for_the_same_readers() {
        let dir = tempfile::tempdir().unwrap();
        let (config, link) = (dir.path().join("real.toml"), dir.path().join("link.toml"));
        replace(&config, "new").unwrap();
        assert_eq!(mode(&config), 0o600);
        std::fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&config, &link).unwrap();
        replace(&link, "text").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&config).unwrap(), "text");
        assert_eq!(mode(&config), 0o644);
        let password = dir.path().join("password");
        replace_private(&password, "s3cret", &link).unwrap();
        assert_eq!(mode(&password), 0o640);
        assert_eq!(dir.path().read_dir().unwrap().count(), 3, "nothing else");
        replace(&dir.path().join("none/x"), "").unwrap_err();
    }
}
