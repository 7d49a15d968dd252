//! Which instruction sets are compared here; the golden tests have this file, too.

use kernels::Isa;

/// Every instruction set of this CPU. Where `GEMMAD_EXPECT_ISA` names one, CPUs of several generations are emulated, one after the
/// other: each compares what the plainer ones have not, and none where that one is missing.
pub(crate) fn isas() -> Vec<Isa> {
    let mut all = Isa::available();
    if let Ok(expected) = std::env::var("GEMMAD_EXPECT_ISA") {
        // The plainest has nobody before it who compares the reference.
        let is_plainest = all.get(1).is_some_and(|isa| isa.name() == expected);
        all.retain(|&isa| isa.name() == expected || is_plainest && isa == Isa::scalar());
    }
    all
}
