//! What a repository holds at one commit, as the hub's list has it.

use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::error::HubError;
use super::name::is_inside;

/// The list of the largest repositories has some hundred files.
const MAX_FILES: usize = 10_000;

/// What the hub calls the contents of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Etag {
    /// SHA-256 of the contents, in hexadecimal: of large files.
    Sha256(String),
    /// What git calls it, SHA-1 over `blob `, the length, a zero and the contents: of small files.
    GitBlob(String),
}

impl Etag {
    /// Reads an `ETag` or the name of a blob; `None` where it is no hash.
    pub fn parse(text: &str) -> Option<Etag> {
        let text = text.trim().trim_start_matches("W/").trim_matches('"');
        let text = text.to_ascii_lowercase();
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match text.len() {
            64 if is_hex => Some(Etag::Sha256(text)),
            40 if is_hex => Some(Etag::GitBlob(text)),
            _ => None,
        }
    }

    /// The hash.
    pub fn hex(&self) -> &str {
        match self {
            Etag::Sha256(hex) | Etag::GitBlob(hex) => hex,
        }
    }
}

/// The hash of a file that is on its way, of the kind that the hub names.
pub(super) enum Check {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Check {
    pub(super) fn new(etag: &Etag, size: u64) -> Check {
        match etag {
            Etag::Sha256(_) => Check::Sha256(Sha256::new()),
            Etag::GitBlob(_) => Check::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Check::Sha256(hash) => hash.update(bytes),
            Check::GitBlob(hash) => hash.update(bytes),
        }
    }

    /// Compares with what the hub names.
    pub(super) fn finish(self, etag: &Etag, file: &str) -> Result<(), HubError> {
        let found = match self {
            Check::Sha256(hash) => hex::encode(hash.finalize()),
            Check::GitBlob(hash) => hex::encode(hash.finalize()),
        };
        match found == etag.hex() {
            true => Ok(()),
            false => Err(HubError::Hash {
                file: file.to_owned(),
                expected: etag.hex().to_owned(),
                found,
            }),
        }
    }
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its path there, which stays inside whatever directory it is joined to.
    pub name: String,
    /// Its size, bytes.
    pub size: u64,
    /// What its contents are called.
    pub etag: Option<Etag>,
}

/// A repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// `owner/name`.
    pub id: String,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// Whether terms are to be accepted first.
    pub gated: bool,
    /// The licence that its card names, such as `apache-2.0`.
    pub licence: Option<String>,
    /// Its files, in alphabetical order.
    pub files: Vec<RemoteFile>,
}

/// Whether it is the full name of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Repository {
    /// The file of that name.
    pub fn file(&self, name: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Some of its files, for a message.
    pub fn some_files(&self) -> String {
        const SHOWN: usize = 12;
        let names = self.files.iter().map(|file| file.name.as_str());
        let mut text = names.take(SHOWN).collect::<Vec<_>>().join(", ");
        if self.files.len() > SHOWN {
            text += &format!(" and {} more", self.files.len() - SHOWN);
        }
        match text.is_empty() {
            true => "none".to_owned(),
            false => text,
        }
    }

    /// Reads `/api/models/ID/revision/REVISION?blobs=true`. Files whose names lead elsewhere are left out.
    ///
    /// # Errors
    /// It is no such list.
    pub(super) fn parse(id: &str, json: &[u8]) -> Result<Repository, String> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            #[serde(default)]
            gated: serde_json::Value,
            #[serde(default, rename = "cardData")]
            card: Option<serde_json::Value>,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Sibling {
            rfilename: String,
            size: Option<u64>,
            blob_id: Option<String>,
            lfs: Option<Lfs>,
        }
        #[derive(Deserialize)]
        struct Lfs {
            sha256: Option<String>,
            size: Option<u64>,
        }
        let answer: Answer = serde_json::from_slice(json)
            .map_err(|error| format!("its list of files is not understood: {error}"))?;
        if !is_commit(&answer.sha) {
            return Err("its list of files names no commit".to_owned());
        }
        if answer.siblings.len() > MAX_FILES {
            return Err(format!("its list has more than {MAX_FILES} files"));
        }
        let files = answer.siblings.into_iter().filter_map(|sibling| {
            let large = sibling.lfs.as_ref();
            let hash = large.and_then(|lfs| lfs.sha256.clone());
            let file = RemoteFile {
                size: large.and_then(|lfs| lfs.size).or(sibling.size)?,
                etag: hash.or(sibling.blob_id).and_then(|hash| Etag::parse(&hash)),
                name: sibling.rfilename,
            };
            is_inside(&file.name).then_some(file)
        });
        let mut files: Vec<RemoteFile> = files.collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let licence = answer.card.and_then(|card| {
            let named = card.get("license")?.as_str()?;
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            (named.len() <= 64 && named.chars().all(plain)).then(|| named.to_owned())
        });
        Ok(Repository {
            id: id.to_owned(),
            commit: answer.sha.to_ascii_lowercase(),
            gated: !matches!(
                answer.gated,
                serde_json::Value::Null | serde_json::Value::Bool(false)
            ),
            licence,
            files,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_paths_that_lead_elsewhere_are_not() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        let sha256 = "ab".repeat(32);
        let json = format!(
            r#"{{"sha": "{sha}", "gated": "auto", "cardData": {{"license": "gemma"}}, "other": 1, "siblings": [
                {{"rfilename": "model.safetensors", "size": 9, "blobId": "{sha}", "lfs": {{"sha256": "{sha256}", "size": 10}}}},
                {{"rfilename": "../../etc/passwd", "size": 1}}, {{"rfilename": "/etc/passwd", "size": 1}},
                {{"rfilename": "a/../../b", "size": 1}}, {{"rfilename": "config.json", "size": 3, "blobId": "{sha}"}}]}}"#
        );
        let found = Repository::parse("a/b", json.as_bytes()).unwrap();
        assert!(found.gated && found.licence.as_deref() == Some("gemma"));
        let files: Vec<_> = found
            .files
            .iter()
            .map(|file| (file.name.as_str(), file.size))
            .collect();
        assert_eq!(files, [("config.json", 3), ("model.safetensors", 10)]);
        assert_eq!(found.files[1].etag, Some(Etag::Sha256(sha256)));
        for bad in ["", "<html>", "{}", r#"{"sha": "x", "siblings": []}"#] {
            assert!(Repository::parse("a/b", bad.as_bytes()).is_err(), "{bad}");
        }
    }

    /// `printf 'hello\n' | git hash-object --stdin`, and `sha256sum`.
    #[test]
    fn hashes_are_those_of_git_and_of_sha256sum() {
        for etag in [
            "\"ce013625030ba8dba906f756967f9e9ca394464a\"",
            "W/\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\"",
        ] {
            let etag = Etag::parse(etag).unwrap();
            let mut check = Check::new(&etag, 6);
            check.update(b"hel");
            check.update(b"lo\n");
            check.finish(&etag, "a").unwrap();
            let mut check = Check::new(&etag, 6);
            check.update(b"hallo\n");
            assert!(check.finish(&etag, "a").is_err());
        }
        assert_eq!(Etag::parse("\"12-abc\""), None);
    }
}
