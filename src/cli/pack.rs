//! `gemmad pack`: quantise a checkpoint.

use std::io::Write;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use kernels::{Isa, Pool};

use super::failure::{Failure, exit};
use super::{model_args, output, progress};
use crate::model::weights::Checkpoint;
use crate::pack::{self, PackOptions, Recipe, SyntheticSize};

/// Quantise a checkpoint into a pack, which runs in place from flash
///
/// The pack appears when it is complete; a run that was interrupted is simply repeated.
#[derive(Debug, clap::Args)]
pub(super) struct Pack {
    /// A downloaded checkpoint of Gemma 3n or Gemma 4, or a Gemma 3n text model of llama.cpp
    #[arg(
        long,
        value_name = "DIR|FILE.gguf",
        required_unless_present = "synthetic"
    )]
    from: Option<PathBuf>,
    /// Random weights of a published size instead, to measure with: of Gemma 4, or of Gemma 3n (e2b, e4b)
    #[arg(long, value_name = "SIZE", value_parser = size(), conflicts_with = "from")]
    synthetic: Option<SyntheticSize>,
    /// The same seed gives the same synthetic pack
    #[arg(long, value_name = "N", requires = "synthetic", default_value_t = 0)]
    seed: u64,
    /// A synthetic pack without audio and vision
    #[arg(long, requires = "synthetic")]
    text_only: bool,
    /// Directory of the tokenizer.json for a GGUF file whose own is not usable
    #[arg(long, value_name = "DIR", requires = "from")]
    tokenizer: Option<PathBuf>,
    /// The directory to make, NAME.pack by custom
    #[arg(long, value_name = "NAME.pack")]
    to: PathBuf,
    /// How many bits the weights get
    #[arg(long, value_enum, default_value_t = RecipeArg::Balanced)]
    recipe: RecipeArg,
    /// Replace the pack that is there
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RecipeArg {
    /// 8 bit everywhere
    Q8,
    /// feed-forward in 4 bit, the rest in 8; of the head 4 bits are read for every token, the others where they matter
    Balanced,
    /// 4 bit, and 8 where it is cheap
    Small,
}

/// A size by its name.
fn size() -> impl TypedValueParser<Value = SyntheticSize> {
    let names = SyntheticSize::ALL.map(SyntheticSize::name);
    PossibleValuesParser::new(names)
        .try_map(|name| SyntheticSize::named(&name).ok_or("there is no such size"))
}

impl Pack {
    pub(super) fn run(self) -> Result<(), Failure> {
        let isa = Isa::from_environment().map_err(|error| Failure::new(exit::CONFIG, error))?;
        let pool = Pool::new(isa, kernels::recommended_threads());
        let options = PackOptions {
            recipe: match self.recipe {
                RecipeArg::Q8 => Recipe::Q8,
                RecipeArg::Balanced => Recipe::Balanced,
                RecipeArg::Small => Recipe::Small,
            },
            force: self.force,
        };
        let bar = progress::of_bytes("packing");
        let mut advance = |done: u64, total: u64| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let packed = match (&self.from, self.synthetic) {
            (Some(from), _) if !from.is_dir() => {
                let tokenizer = self.tokenizer.as_deref();
                pack::pack_gguf(from, tokenizer, &self.to, options, &pool, &mut advance)
            }
            (Some(from), _) => {
                if let Ok(checkpoint) = Checkpoint::open(from) {
                    model_args::warn(checkpoint.warnings());
                }
                pack::pack_checkpoint(from, &self.to, options, &pool, &mut advance)
            }
            (None, size) => {
                let (text_only, seed) = (self.text_only, self.seed);
                pack::pack_synthetic(
                    size.unwrap_or(SyntheticSize::ALL[0]),
                    text_only,
                    seed,
                    &self.to,
                    options,
                    &pool,
                    &mut advance,
                )
            }
        };
        bar.finish_and_clear();
        let manifest = packed?;
        let bytes: u64 = manifest.files.values().map(|file| file.bytes).sum();
        let mut out = output::out();
        writeln!(
            out,
            "{}: {} files, {:.1} MiB, recipe {}",
            self.to.display(),
            manifest.files.len(),
            bytes as f64 / f64::from(1 << 20),
            manifest.recipe
        )?;
        Ok(())
    }
}
