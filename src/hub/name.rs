//! What people call a model, and where it lies on the hub.

/// A model on the hub, as a person named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    /// `owner/name`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// The one file that is meant; else the checkpoint in the published layout.
    pub file: Option<String>,
    /// Whether a file of llama.cpp is meant, whatever it is called.
    pub gguf: bool,
    /// The repository that has the tokenizer, where this one has none.
    pub tokenizer_repository: Option<String>,
    /// The recipe that belongs to the name.
    pub recipe: Option<&'static str>,
    /// What the pack is called.
    pub short: String,
    /// The terms that bind whoever uses it, where they are not a free licence's.
    pub terms: Option<&'static str>,
}

/// A short name and what it stands for.
struct Known {
    name: &'static str,
    repository: &'static str,
    terms: Option<&'static str>,
    is_gemma_4: bool,
}

const GEMMA_TERMS: &str = "https://ai.google.dev/gemma/terms";
const KNOWN: [Known; 4] = [
    Known {
        name: "gemma-4-e2b",
        repository: "google/gemma-4-E2B-it",
        terms: None,
        is_gemma_4: true,
    },
    Known {
        name: "gemma-4-e4b",
        repository: "google/gemma-4-E4B-it",
        terms: None,
        is_gemma_4: true,
    },
    Known {
        name: "gemma-3n-e2b",
        repository: "google/gemma-3n-E2B-it",
        terms: Some(GEMMA_TERMS),
        is_gemma_4: false,
    },
    Known {
        name: "gemma-3n-e4b",
        repository: "google/gemma-3n-E4B-it",
        terms: Some(GEMMA_TERMS),
        is_gemma_4: false,
    },
];

/// What may be named, for help and messages.
pub const NAMES: &str = "gemma-4-e2b, gemma-4-e4b, gemma-3n-e2b or gemma-3n-e4b, each with :bf16 or :q8, of Gemma 4 also :q4_0 or :mobile; or OWNER/REPOSITORY[@REVISION][:FILE]";

const VARIANTS: [&str; 4] = ["bf16", "q8", "q4_0", "mobile"];
const MAIN: &str = "main";
const MAX_REVISION_BYTES: usize = 256;
/// The longest name of a repository's part that the hub takes.
const MAX_PART_BYTES: usize = 96;
const MAX_PATH_BYTES: usize = 512;

impl ModelName {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with it, and what may be named.
    pub fn parse(text: &str) -> Result<ModelName, String> {
        if text.contains('/') {
            return of_repository(text);
        }
        let (name, variant) = text.split_once(':').unwrap_or((text, "bf16"));
        let unknown = || format!("{text:?} is no model that can be pulled: give {NAMES}");
        let known = KNOWN.iter().find(|known| known.name == name);
        let known = known.ok_or_else(unknown)?;
        let mut model = ModelName {
            repository: known.repository.to_owned(),
            revision: MAIN.to_owned(),
            file: None,
            gguf: false,
            tokenizer_repository: None,
            recipe: None,
            short: text.replace(':', "-"),
            terms: known.terms,
        };
        match variant {
            "bf16" => {}
            "q8" => model.recipe = Some("q8"),
            "mobile" if known.is_gemma_4 => {
                model.recipe = Some("mobile");
                model.repository += "-qat-mobile-transformers";
            }
            "q4_0" if known.is_gemma_4 => {
                model.recipe = Some("q4_0");
                model.tokenizer_repository = Some(model.repository.clone());
                model.repository += "-qat-q4_0-gguf";
                model.gguf = true;
            }
            _ => return Err(unknown()),
        }
        Ok(model)
    }
}

impl ModelName {
    /// The repository of the drafter that is published beside the model; `None` where that is not known.
    pub fn drafter_repository(&self) -> Option<String> {
        let mut models = KNOWN.iter().filter(|known| known.is_gemma_4);
        let (model, kind) = models.find_map(|known| {
            let kind = self.repository.strip_prefix(known.repository)?;
            Some((known.repository, kind))
        })?;
        // One of its own is for weights that were trained in few bits.
        match kind {
            "" => Some(format!("{model}-assistant")),
            _ if kind.starts_with("-qat-") => {
                Some(format!("{model}-qat-q4_0-unquantized-assistant"))
            }
            _ => None,
        }
    }

    /// What a pack is pulled anew by: of `OWNER/REPOSITORY@COMMIT[:FILE]`, as its source is written, and its own name.
    pub fn of_pack(source: &str, short: &str) -> String {
        let (repository, rest) = source.split_once('@').unwrap_or((source, ""));
        let is_it = |name: &String| {
            let parsed = ModelName::parse(name);
            parsed.is_ok_and(|model| model.repository == repository && model.short == short)
        };
        let mut known = KNOWN.iter().flat_map(|known| {
            let of = |variant: &str| format!("{}:{variant}", known.name);
            let variants = VARIANTS.iter().map(move |variant| of(variant));
            std::iter::once(known.name.to_owned()).chain(variants)
        });
        known.find(is_it).unwrap_or_else(|| {
            let file = rest.split_once(':').map(|(_, file)| format!(":{file}"));
            format!("{repository}{}", file.unwrap_or_default())
        })
    }
}

fn of_repository(text: &str) -> Result<ModelName, String> {
    let bad = |what: &str| format!("{text:?}: {what}; give {NAMES}");
    let end = text.find(['@', ':']).unwrap_or(text.len());
    let (repository, rest) = text.split_at(end);
    let (revision, file) = match rest.strip_prefix('@') {
        Some(rest) => match rest.split_once(':') {
            Some((revision, file)) => (revision, Some(file)),
            None => (rest, None),
        },
        None => (MAIN, rest.strip_prefix(':')),
    };
    let parts: Vec<&str> = repository.split('/').collect();
    let fits = |part: &&str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        (1..=MAX_PART_BYTES).contains(&part.len())
            && part.chars().all(allowed)
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
    };
    if parts.len() != 2 || !parts.iter().all(fits) {
        return Err(bad("a repository is named OWNER/REPOSITORY"));
    }
    let plain = |c: char| c.is_ascii_graphic() && c != '\\';
    if !(1..=MAX_REVISION_BYTES).contains(&revision.len()) || !revision.chars().all(plain) {
        return Err(bad("a revision is a branch, a tag or a commit"));
    }
    if let Some(file) = file.filter(|file| !is_inside(file)) {
        return Err(bad(&format!("{file:?} is no file of a repository")));
    }
    let gguf = file.is_some_and(|file| file.ends_with(".gguf"));
    let short = match file {
        Some(file) if gguf => file.rsplit('/').next().unwrap_or(file),
        _ => parts[1],
    };
    Ok(ModelName {
        repository: repository.to_owned(),
        revision: revision.to_owned(),
        file: file.map(str::to_owned),
        gguf,
        tokenizer_repository: None,
        recipe: None,
        short: short.trim_end_matches(".gguf").to_ascii_lowercase(),
        terms: None,
    })
}

/// Whether a path that somebody else wrote stays inside the directory that it is joined to.
pub(super) fn is_inside(path: &str) -> bool {
    let parts = path.split('/');
    let plain = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.chars().any(|c| c.is_control() || c == '\\')
    };
    path.len() <= MAX_PATH_BYTES && parts.into_iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_the_drafter_that_was_trained_with_it() {
        let plain = "google/gemma-4-E2B-it-assistant";
        let trained = "google/gemma-4-E4B-it-qat-q4_0-unquantized-assistant";
        for (name, drafter) in [
            ("gemma-4-e2b:q8", Some(plain)),
            ("google/gemma-4-E2B-it@main", Some(plain)),
            ("gemma-4-e4b:q4_0", Some(trained)),
            ("gemma-4-e4b:mobile", Some(trained)),
            ("google/gemma-4-E4B-it-qat-q4_0-unquantized", Some(trained)),
            ("google/gemma-4-E4B-it-other", None),
            ("somebody/gemma-4-E2B-it", None),
            ("gemma-3n-e2b", None),
        ] {
            let found = ModelName::parse(name).unwrap().drafter_repository();
            assert_eq!(found.as_deref(), drafter, "{name}");
        }
    }

    #[test]
    fn names_lead_to_repositories() {
        for (text, repository, revision, file, short) in [
            (
                "gemma-4-e2b",
                "google/gemma-4-E2B-it",
                "main",
                None,
                "gemma-4-e2b",
            ),
            (
                "gemma-3n-e4b:q8",
                "google/gemma-3n-E4B-it",
                "main",
                None,
                "gemma-3n-e4b-q8",
            ),
            (
                "gemma-4-e4b:mobile",
                "google/gemma-4-E4B-it-qat-mobile-transformers",
                "main",
                None,
                "gemma-4-e4b-mobile",
            ),
            (
                "gemma-4-e2b:q4_0",
                "google/gemma-4-E2B-it-qat-q4_0-gguf",
                "main",
                None,
                "gemma-4-e2b-q4_0",
            ),
            ("a/B.c", "a/B.c", "main", None, "b.c"),
            ("a/b@refs/pr/1", "a/b", "refs/pr/1", None, "b"),
            (
                "a/b@v1:x/Y-Q4_0.gguf",
                "a/b",
                "v1",
                Some("x/Y-Q4_0.gguf"),
                "y-q4_0",
            ),
            ("a/b:y.gguf", "a/b", "main", Some("y.gguf"), "y"),
        ] {
            let name = ModelName::parse(text).unwrap();
            let found = (
                name.repository.as_str(),
                name.revision.as_str(),
                name.file.as_deref(),
            );
            assert_eq!(found, (repository, revision, file), "{text}");
            assert_eq!(name.short, short, "{text}");
            assert_eq!(name.terms.is_some(), text.contains("3n"), "{text}");
        }
        for recipe in ["q8", "q4_0", "mobile"] {
            let name = ModelName::parse(&format!("gemma-4-e2b:{recipe}"));
            assert_eq!(name.unwrap().recipe, Some(recipe));
        }
    }

    #[test]
    fn a_pack_is_pulled_anew_by_the_name_that_it_was_pulled_by() {
        for name in [
            "gemma-4-e2b",
            "gemma-3n-e4b:q8",
            "gemma-4-e2b:q4_0",
            "gemma-4-e4b:mobile",
            "a/b",
            "a/b:x/Y.gguf",
        ] {
            let model = ModelName::parse(name).unwrap();
            let file = model.file.map_or(String::new(), |file| format!(":{file}"));
            let source = format!("{}@{}{file}", model.repository, "0".repeat(40));
            assert_eq!(ModelName::of_pack(&source, &model.short), name);
        }
        let renamed = ModelName::of_pack("google/gemma-4-E2B-it@0", "mine");
        assert_eq!(renamed, "google/gemma-4-E2B-it");
    }

    #[test]
    fn what_is_no_name_is_told_what_is() {
        for text in [
            "",
            "gemma",
            "gemma-4-e2b:q5",
            "gemma-3n-e2b:mobile",
            "a/b/c",
            "a/",
            "/b",
            "../b",
            "a/..",
            "a/b@",
            "a/b@x y",
            "a/b:",
            "a/b:../c",
            "a/b:/etc/passwd",
            "a/b:x//y",
            "a/b:x\\y",
            "a b/c",
        ] {
            let told = ModelName::parse(text).unwrap_err();
            assert!(told.contains("gemma-4-e2b"), "{text}: {told}");
        }
    }
}
