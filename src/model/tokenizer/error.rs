//! What can be wrong with a tokenizer.

use std::path::PathBuf;

/// `tokenizer.json` or `tokenizer_config.json` cannot be used, or an id is not in the vocabulary.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The operating system refused to read the file.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not the JSON that it should be.
    #[error("{}: {key}: {source} (positions count from the start of that value)", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The part of the file that was being read.
        key: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A value is missing, contradicts another one, or asks for something that this program does not do.
    #[error("{}: {key}: expected {expected}, found {found}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with its section.
        key: String,
        /// What is supported or consistent.
        expected: String,
        /// What stands in the file.
        found: String,
    },
    /// The tokenizer and `config.json` give one token two ids.
    #[error(
        "{} gives {token} the id {tokenizer_id}, but {} says {key} = {config_id}; \
         the two files are not of one checkpoint: take both from the same source",
        tokenizer_path.display(),
        config_path.display()
    )]
    Disagreement {
        /// The tokenizer's file.
        tokenizer_path: PathBuf,
        /// The model's configuration.
        config_path: PathBuf,
        /// The token's text.
        token: String,
        /// Its id in the tokenizer.
        tokenizer_id: u32,
        /// The key of the configuration.
        key: &'static str,
        /// The value of that key.
        config_id: String,
    },
    /// An id that no token has.
    #[error("token id {id} is not in the vocabulary of {} ({vocab_size} ids)", path.display())]
    UnknownId {
        /// The tokenizer's file.
        path: PathBuf,
        /// The id.
        id: u32,
        /// One more than the highest id.
        vocab_size: usize,
    },
}
