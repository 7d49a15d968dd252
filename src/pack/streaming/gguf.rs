//! Files of llama.cpp: a text model, perhaps in parts, and what hears and sees beside it.

use super::super::error::PackError;
use super::super::gguf::{Gguf, Mmproj, Wanted};
use super::super::with_towers::Both;
use super::super::writer::Progress;
use super::super::{Packed, Recipe, plan_gguf};
use super::staging::Staging;
use super::{Run, Told, files};
use crate::hub::{RemoteFile, Repository};
use crate::model::weights::Group;

impl Run<'_> {
    pub(super) fn gguf(
        &self,
        file: &RemoteFile,
        progress: &mut Progress<'_>,
        told: &mut Told<'_>,
    ) -> Result<Packed, PackError> {
        let (hub, place) = (self.hub, self.place);
        let tokenizer = match hub.tokenizer {
            Some(repository) => {
                place.small_files(hub.client, repository, told)?;
                Some(place.source())
            }
            None => None,
        };
        let wants_towers = hub.groups.iter().any(|group| *group >= Group::Audio);
        let towers = mmproj(hub.repository).filter(|_| wants_towers);
        let parts = gguf_parts(hub.repository, file);
        let all: Vec<&RemoteFile> = parts.iter().copied().chain(towers).collect();
        let files = files(hub.repository, &all);
        let mut staging = Staging::new(hub, place, &files, told.fetched)?;
        for part in parts {
            staging.add_gguf(part, Wanted::Text)?;
        }
        let mut text = Gguf::open(&place.path(file))?;
        for found in text.locate_config() {
            staging.fetch(&found)?;
        }
        let architecture = text.architecture()?;
        let recipe = match hub.keeps_trained && text.is_trained(&*architecture) {
            true => Recipe::Q4_0,
            false => self.options.recipe,
        };
        let Some(towers) = towers else {
            let planned = plan_gguf(&mut text, tokenizer, recipe)?;
            return self.write(
                planned,
                text,
                staging,
                (&files, recipe),
                progress,
                told.note,
            );
        };
        staging.add_gguf(towers, Wanted::Towers)?;
        let mmproj = Mmproj::open(&place.path(towers))?;
        for warning in mmproj.warnings() {
            (told.note)(&format!("warning: {warning}"));
        }
        let mut both = Both { text, mmproj };
        let planned = both.plan_gguf(tokenizer, recipe)?;
        self.write(
            planned,
            both,
            staging,
            (&files, recipe),
            progress,
            told.note,
        )
    }
}

/// What hears and sees, beside files of llama.cpp that lack it; of several the one with the most bits.
fn mmproj(repository: &Repository) -> Option<&RemoteFile> {
    let is_one = |file: &&RemoteFile| {
        let name = file.name.to_ascii_lowercase();
        name.contains("mmproj") && name.ends_with(".gguf")
    };
    let bits = |file: &&RemoteFile| file.size;
    repository.files.iter().filter(is_one).max_by_key(bits)
}

/// The files that one of llama.cpp is a part of (`NAME-00001-of-00003.gguf`), in their order; of a whole one itself.
pub fn gguf_parts<'a>(repository: &'a Repository, file: &'a RemoteFile) -> Vec<&'a RemoteFile> {
    let Some(all) = name_of_parts(&file.name) else {
        return vec![file];
    };
    let is_part = |other: &&RemoteFile| name_of_parts(&other.name) == Some(all);
    repository.files.iter().filter(is_part).collect()
}

/// What the names of all parts have in common: before their number, and behind it.
fn name_of_parts(name: &str) -> Option<(&str, &str)> {
    const NUMBER: usize = "00001".len();
    const END: usize = "-of-00003.gguf".len();
    let (rest, end) = name.split_at_checked(name.len().checked_sub(END)?)?;
    let (stem, number) = rest.split_at_checked(rest.len().checked_sub(NUMBER)?)?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let total = end.strip_prefix("-of-")?.strip_suffix(".gguf")?;
    (is_number(number) && is_number(total)).then_some((stem, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_by_their_names() {
        let names = [
            "b/M-00001-of-00002.gguf",
            "b/M-00002-of-00002.gguf",
            "b/N-00001-of-00002.gguf",
            "M-00001-of-00002.gguf",
            "M.gguf",
        ];
        let files = names.map(|name| RemoteFile {
            name: name.to_owned(),
            size: 1,
            etag: None,
        });
        let repository = Repository {
            id: "a/b".to_owned(),
            commit: "0".repeat(40),
            gated: false,
            licence: None,
            files: files.to_vec(),
        };
        let parts = |at: usize| -> Vec<&str> {
            let parts = gguf_parts(&repository, &files[at]).into_iter();
            parts.map(|file| file.name.as_str()).collect()
        };
        assert_eq!(parts(0), names[..2]);
        assert_eq!(parts(1), names[..2]);
        assert_eq!(parts(2), names[2..3]);
        assert_eq!(parts(4), names[4..]);
    }
}
