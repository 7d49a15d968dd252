//! Every kernel on every instruction set of this CPU against its scalar reference: every tail length, real sizes, special
//! values. `GEMMAD_EXPECT_ISA=name` makes it fail where that one is missing, so that a run under an emulator proves what
//! it says.

mod attention;
mod attention_int8;
mod clip;
mod common;
mod conv;
mod elements;
mod isas;
mod pool;
mod products;
mod quant_formats;
mod quantized;
mod row_scaled;
mod sparse;
mod trained;

use std::io::Write;

#[test]
fn the_expected_instruction_set_is_here() {
    let names: Vec<_> = common::isas().iter().map(|isa| isa.name()).collect();
    // Past the capture of the test harness: every run says what it exercised.
    writeln!(
        std::io::stderr(),
        "kernels: instruction sets exercised: {}",
        names.join(", ")
    )
    .unwrap();
    if let Ok(expected) = std::env::var("GEMMAD_EXPECT_ISA") {
        assert!(
            names.contains(&expected.as_str()),
            "GEMMAD_EXPECT_ISA={expected}, but this CPU has only {:?}",
            kernels::Isa::available()
        );
    }
}
