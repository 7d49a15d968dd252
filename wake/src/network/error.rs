//! What is wrong with a model.

/// A `.tflite` file cannot be used; each is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Another kind of file.
    #[error("is no TensorFlow Lite model (a .tflite file)")]
    NotTflite,
    /// Something points behind its end.
    #[error("is damaged or not whole: download it again")]
    Truncated,
    /// Of something there is more than a wake word model has.
    #[error("has {found} {what}, and a wake word model at most {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it has.
        found: usize,
        /// How many are borne.
        most: usize,
    },
    /// It needs an operator that is not computed.
    #[error(
        "needs the operator {0}, which gemmad does not compute: a streaming microWakeWord model has none such"
    )]
    UnknownOperator(String),
    /// An operator is there in a form that is not computed.
    #[error("{operator}: {what}")]
    Operator {
        /// Its name in the schema.
        operator: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// Its input or its output is not that of a wake word model.
    #[error("{0}: it is no streaming microWakeWord model")]
    Interface(String),
}
