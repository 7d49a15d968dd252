//! The model's names. Many clients can choose nothing but a model; so each slice of it, and each end of the soft tokens that a picture may
//! become, has a name of its own.

use super::fault::Fault;
use super::options::HttpServerOptions;
use crate::report::{ModelCard, Name};

/// What Ollama's clients put behind a name without a tag.
const LATEST: &str = "latest";

/// A model that was asked for by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chosen {
    /// As the client called it.
    pub(super) name: String,
    /// The slice that answers.
    pub(super) matformer: Option<Name>,
    /// Soft tokens that a picture becomes at most.
    pub(super) soft_tokens: Option<usize>,
}

/// What stands behind a name's colon.
struct Tag {
    name: String,
    matformer: Option<String>,
    soft_tokens: Option<usize>,
}

fn tags(card: &ModelCard) -> Vec<Tag> {
    let slices = card.slices.iter().skip(1).map(|slice| Tag {
        name: slice.to_lowercase(),
        matformer: Some(slice.clone()),
        soft_tokens: None,
    });
    let ends = match card.soft_tokens.as_slice() {
        [least, .., most] => vec![("low-res", *least), ("high-res", *most)],
        _ => Vec::new(),
    };
    let ends = ends.into_iter().map(|(name, soft_tokens)| Tag {
        name: name.to_owned(),
        matformer: None,
        soft_tokens: Some(soft_tokens),
    });
    slices.chain(ends).collect()
}

/// Every name that there is, as OpenAI's clients are told; the model's own first.
pub(super) fn all(card: &ModelCard) -> Vec<String> {
    let tagged = tags(card)
        .into_iter()
        .map(|tag| format!("{}:{}", card.name, tag.name));
    std::iter::once(card.name.clone()).chain(tagged).collect()
}

/// Every name that there is, as Ollama's clients are told: with a tag.
pub(super) fn tagged(card: &ModelCard) -> Vec<String> {
    let mut names = all(card);
    names[0] = format!("{}:{LATEST}", card.name);
    names
}

/// The model that a client means; none is the model's own.
///
/// # Errors
/// There is no such model.
pub(super) fn choose(
    card: &ModelCard,
    options: &HttpServerOptions,
    asked: Option<&str>,
) -> Result<Chosen, Fault> {
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
        return Ok(Chosen {
            name: card.name.clone(),
            ..Chosen::default()
        });
    };
    let none = || Fault::no_model(asked, &all(card));
    let same =
        |known: &str| known.eq_ignore_ascii_case(asked.strip_suffix(":latest").unwrap_or(asked));
    let chosen = Chosen {
        name: asked.to_owned(),
        ..Chosen::default()
    };
    if same(&card.name) || options.aliases.iter().any(|alias| same(alias)) {
        return Ok(chosen);
    }
    let (name, tag) = asked.rsplit_once(':').ok_or_else(none)?;
    if !name.eq_ignore_ascii_case(&card.name) {
        return Err(none());
    }
    let mut tags = tags(card).into_iter();
    let found = tags
        .find(|known| known.name.eq_ignore_ascii_case(tag))
        .ok_or_else(none)?;
    let matformer = found
        .matformer
        .map(|slice| Name::new("model", slice))
        .transpose();
    Ok(Chosen {
        matformer: matformer.map_err(|error| Fault::from(&error))?,
        soft_tokens: found.soft_tokens,
        ..chosen
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_and_budgets_are_chosen_by_name() {
        let card = ModelCard {
            name: "gemma-3n-e4b".to_owned(),
            slices: vec!["E4B".to_owned(), "E2B".to_owned()],
            soft_tokens: vec![70, 280, 1120],
            ..ModelCard::default()
        };
        let options = HttpServerOptions {
            aliases: vec!["gpt-4o".to_owned()],
            ..HttpServerOptions::default()
        };
        assert_eq!(
            all(&card),
            [
                "gemma-3n-e4b",
                "gemma-3n-e4b:e2b",
                "gemma-3n-e4b:low-res",
                "gemma-3n-e4b:high-res"
            ]
        );
        assert_eq!(tagged(&card)[0], "gemma-3n-e4b:latest");
        let chosen = |asked| {
            let chosen = choose(&card, &options, asked).ok()?;
            Some((
                chosen.matformer.map(|name| name.to_string()),
                chosen.soft_tokens,
            ))
        };
        for asked in [
            None,
            Some(""),
            Some("gemma-3n-e4b"),
            Some("Gemma-3n-E4B:latest"),
            Some("gpt-4o"),
        ] {
            assert_eq!(chosen(asked), Some((None, None)), "{asked:?}");
        }
        assert_eq!(
            chosen(Some("gemma-3n-e4b:e2b")),
            Some((Some("E2B".to_owned()), None))
        );
        assert_eq!(chosen(Some("gemma-3n-e4b:low-res")), Some((None, Some(70))));
        assert_eq!(
            chosen(Some("gemma-3n-e4b:HIGH-RES")),
            Some((None, Some(1120)))
        );
        for asked in ["gemma-3n-e4b:e3b", "gpt-4", "", ":", "gemma-3n-e4b:"] {
            let refused = choose(&card, &options, Some(asked)).is_err();
            assert_eq!(refused, !asked.is_empty(), "{asked:?}");
        }
    }
}
