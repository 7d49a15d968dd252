//! The operators that a wake word model may have, and what the others are called.

/// What is computed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Concatenation,
    Conv2d,
    DepthwiseConv2d,
    FullyConnected,
    Logistic,
    Reshape,
    StridedSlice,
    SplitV,
    Quantize,
    CallOnce,
    VarHandle,
    ReadVariable,
    AssignVariable,
}

impl Operator {
    const ALL: [Operator; 13] = [
        Operator::Concatenation,
        Operator::Conv2d,
        Operator::DepthwiseConv2d,
        Operator::FullyConnected,
        Operator::Logistic,
        Operator::Reshape,
        Operator::StridedSlice,
        Operator::SplitV,
        Operator::Quantize,
        Operator::CallOnce,
        Operator::VarHandle,
        Operator::ReadVariable,
        Operator::AssignVariable,
    ];

    /// The operator of a code, or else what that is called.
    pub(super) fn of(code: i32) -> Result<Operator, String> {
        let known = Operator::ALL.into_iter().find(|known| known.code() == code);
        known.ok_or_else(|| {
            let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
            name.map_or_else(|| format!("operator {code}"), |name| (*name).to_owned())
        })
    }

    /// `BuiltinOperator` of the schema.
    fn code(self) -> i32 {
        match self {
            Operator::Concatenation => 2,
            Operator::Conv2d => 3,
            Operator::DepthwiseConv2d => 4,
            Operator::FullyConnected => 9,
            Operator::Logistic => 14,
            Operator::Reshape => 22,
            Operator::StridedSlice => 45,
            Operator::SplitV => 102,
            Operator::Quantize => 114,
            Operator::CallOnce => 129,
            Operator::VarHandle => 142,
            Operator::ReadVariable => 143,
            Operator::AssignVariable => 144,
        }
    }

    pub(super) fn name(self) -> &'static str {
        NAMES[self.code() as usize]
    }
}

/// The schema's names by code. A model may have any of them; what is not computed here is said by its name.
#[rustfmt::skip]
const NAMES: [&str; 162] = [
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE",
    "EMBEDDING_LOOKUP", "FLOOR", "FULLY_CONNECTED", "HASHTABLE_LOOKUP", "L2_NORMALIZATION", "L2_POOL_2D",
    "LOCAL_RESPONSE_NORMALIZATION", "LOGISTIC", "LSH_PROJECTION", "LSTM", "MAX_POOL_2D", "MUL", "RELU", "RELU_N1_TO_1", "RELU6",
    "RESHAPE", "RESIZE_BILINEAR", "RNN", "SOFTMAX", "SPACE_TO_DEPTH", "SVDF", "TANH", "CONCAT_EMBEDDINGS", "SKIP_GRAM", "CALL",
    "CUSTOM", "EMBEDDING_LOOKUP_SPARSE", "PAD", "UNIDIRECTIONAL_SEQUENCE_RNN", "GATHER", "BATCH_TO_SPACE_ND",
    "SPACE_TO_BATCH_ND", "TRANSPOSE", "MEAN", "SUB", "DIV", "SQUEEZE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "STRIDED_SLICE",
    "BIDIRECTIONAL_SEQUENCE_RNN", "EXP", "TOPK_V2", "SPLIT", "LOG_SOFTMAX", "DELEGATE", "BIDIRECTIONAL_SEQUENCE_LSTM", "CAST",
    "PRELU", "MAXIMUM", "ARG_MAX", "MINIMUM", "LESS", "NEG", "PADV2", "GREATER", "GREATER_EQUAL", "LESS_EQUAL", "SELECT",
    "SLICE", "SIN", "TRANSPOSE_CONV", "SPARSE_TO_DENSE", "TILE", "EXPAND_DIMS", "EQUAL", "NOT_EQUAL", "LOG", "SUM", "SQRT",
    "RSQRT", "SHAPE", "POW", "ARG_MIN", "FAKE_QUANT", "REDUCE_PROD", "REDUCE_MAX", "PACK", "LOGICAL_OR", "ONE_HOT",
    "LOGICAL_AND", "LOGICAL_NOT", "UNPACK", "REDUCE_MIN", "FLOOR_DIV", "REDUCE_ANY", "SQUARE", "ZEROS_LIKE", "FILL",
    "FLOOR_MOD", "RANGE", "RESIZE_NEAREST_NEIGHBOR", "LEAKY_RELU", "SQUARED_DIFFERENCE", "MIRROR_PAD", "ABS", "SPLIT_V",
    "UNIQUE", "CEIL", "REVERSE_V2", "ADD_N", "GATHER_ND", "COS", "WHERE", "RANK", "ELU", "REVERSE_SEQUENCE", "MATRIX_DIAG",
    "QUANTIZE", "MATRIX_SET_DIAG", "ROUND", "HARD_SWISH", "IF", "WHILE", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5",
    "SCATTER_ND", "SELECT_V2", "DENSIFY", "SEGMENT_SUM", "BATCH_MATMUL", "PLACEHOLDER_FOR_GREATER_OP_CODES", "CUMSUM",
    "CALL_ONCE", "BROADCAST_TO", "RFFT2D", "CONV_3D", "IMAG", "REAL", "COMPLEX_ABS", "HASHTABLE", "HASHTABLE_FIND",
    "HASHTABLE_IMPORT", "HASHTABLE_SIZE", "REDUCE_ALL", "CONV_3D_TRANSPOSE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE",
    "BROADCAST_ARGS", "RANDOM_STANDARD_NORMAL", "BUCKETIZE", "RANDOM_UNIFORM", "MULTINOMIAL", "GELU", "DYNAMIC_UPDATE_SLICE",
    "RELU_0_TO_1", "UNSORTED_SEGMENT_PROD", "UNSORTED_SEGMENT_MAX", "UNSORTED_SEGMENT_SUM", "ATAN2", "UNSORTED_SEGMENT_MIN",
    "SIGN", "BITCAST", "BITWISE_XOR", "RIGHT_SHIFT",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_by_name() {
        for operator in Operator::ALL {
            assert_eq!(Operator::of(operator.code()), Ok(operator));
        }
        assert_eq!(Operator::ReadVariable.name(), "READ_VARIABLE");
        assert_eq!(Operator::of(118), Err("IF".to_owned()));
        assert_eq!(Operator::of(161), Err("RIGHT_SHIFT".to_owned()));
        assert_eq!(Operator::of(-1), Err("operator -1".to_owned()));
        assert_eq!(Operator::of(4711), Err("operator 4711".to_owned()));
    }
}
