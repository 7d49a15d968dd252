//! `gemmad pack`: quantise a checkpoint.

use std::io::Write;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use kernels::{Isa, Pool};

use super::failure::{Failure, exit, note};
use super::{model_args, output, progress};
use crate::model::weights::Checkpoint;
use crate::pack::{self, Mmproj, PackOptions, Recipe, Synthetic, SyntheticSize};

/// Quantise a checkpoint into a pack, which runs in place from flash
///
/// The pack appears when it is complete; a run that was interrupted is simply repeated.
#[derive(Debug, clap::Args)]
pub(super) struct Pack {
    /// A downloaded checkpoint of Gemma 4 or Gemma 3n, or a text model of theirs for llama.cpp (of one in parts any part)
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
    /// What hears and sees, of llama.cpp's mmproj file, beside a text model that lacks it
    #[arg(long, value_name = "FILE.gguf", requires = "from")]
    mmproj: Option<PathBuf>,
    /// The model's drafter, which guesses tokens: a downloaded checkpoint whose name ends in -assistant
    #[arg(long, value_name = "DIR", requires = "from")]
    drafter: Option<PathBuf>,
    /// A synthetic pack with a drafter, of Gemma 4
    #[arg(long, requires = "synthetic")]
    with_drafter: bool,
    /// Directory of the tokenizer.json for a GGUF file, instead of its own tokens
    #[arg(long, value_name = "DIR", requires = "from")]
    tokenizer: Option<PathBuf>,
    /// The directory to make, NAME.pack by custom
    #[arg(long, value_name = "NAME.pack")]
    to: PathBuf,
    /// How many bits the weights get [default: q4_0 or mobile for weights that were trained in few bits, else balanced]
    #[arg(long, value_enum)]
    recipe: Option<RecipeArg>,
    /// Replace the pack that is there
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum RecipeArg {
    /// as in the source, in 16 bits or more: to compare others with
    Float,
    /// 8 bit everywhere
    Q8,
    /// feed-forward in 4 bit, the rest in 8; of the head 4 bits are read for every token, the others where they matter
    Balanced,
    /// layers in 4 bit, taken over bit for bit where the source has them in blocks of Q4_0; head as in balanced, the rest in 8
    #[value(name = "q4_0")]
    Q4_0,
    /// 4 bit, and 8 where it is cheap
    Small,
    /// 2, 4 and 8 bit as they were trained, taken over as they are: Gemma 4's checkpoints called qat-mobile-transformers
    Mobile,
}

impl RecipeArg {
    pub(super) fn recipe(self) -> Recipe {
        match self {
            RecipeArg::Float => Recipe::Float,
            RecipeArg::Q8 => Recipe::Q8,
            RecipeArg::Balanced => Recipe::Balanced,
            RecipeArg::Q4_0 => Recipe::Q4_0,
            RecipeArg::Small => Recipe::Small,
            RecipeArg::Mobile => Recipe::Mobile,
        }
    }
}

/// A size by its name.
fn size() -> impl TypedValueParser<Value = SyntheticSize> {
    let names = SyntheticSize::ALL.map(SyntheticSize::name);
    PossibleValuesParser::new(names)
        .try_map(|name| SyntheticSize::named(&name).ok_or("there is no such size"))
}

impl Pack {
    /// The recipe that was given, with a warning where it spoils what another keeps; else the one that fits the source, which is told.
    fn recipe(&self) -> Recipe {
        let given = self.recipe.map(RecipeArg::recipe);
        // What is wrong with the source is told when it is packed.
        let fitting = self.from.as_deref().map(pack::fitting_recipe);
        let (fitting, is_trained) = fitting.and_then(Result::ok).unwrap_or_default();
        match given {
            None if is_trained => {
                let bits = match fitting {
                    Recipe::Mobile => "2, 4 and 8 bits",
                    _ => "blocks of 4 bits",
                };
                note(&format!(
                    "recipe {}: the weights were trained in {bits}, which stay as they are",
                    fitting.name()
                ));
                fitting
            }
            None => fitting,
            Some(given) => {
                // Of a mobile checkpoint any other recipe is refused when it is packed.
                if is_trained
                    && ![fitting, Recipe::Float].contains(&given)
                    && fitting != Recipe::Mobile
                {
                    let (name, fitting) = (given.name(), fitting.name());
                    model_args::warn(&[format!(
                        "the weights were trained in blocks of 4 bits; {name} quantises some of them anew, {fitting} keeps all as they are"
                    )]);
                }
                given
            }
        }
    }

    pub(super) fn run(self) -> Result<(), Failure> {
        let isa = Isa::from_environment().map_err(|error| Failure::new(exit::CONFIG, error))?;
        let pool = Pool::new(isa, kernels::recommended_threads());
        // What is wrong with it is told where it is packed.
        let source = match &self.from {
            Some(from) if from.is_dir() => Checkpoint::open_source(from).ok(),
            _ => None,
        };
        let options = PackOptions {
            recipe: self.recipe(),
            force: self.force,
            drafter: self.drafter.as_deref(),
        };
        if let Some(source) = &source {
            model_args::warn(source.warnings());
        }
        let mmproj = self.mmproj.as_deref().map(Mmproj::open).transpose()?;
        if let Some(mmproj) = &mmproj {
            model_args::warn(&mmproj.warnings());
        }
        let bar = progress::of_bytes("packing");
        let mut advance = |done: u64, total: u64| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let packed = match (&self.from, mmproj, self.synthetic) {
            (Some(from), Some(mmproj), _) => {
                let tokenizer = self.tokenizer.as_deref();
                pack::pack_with_mmproj(
                    from,
                    tokenizer,
                    mmproj,
                    &self.to,
                    options,
                    &pool,
                    &mut advance,
                )
            }
            (Some(from), None, _) if !from.is_dir() => {
                let tokenizer = self.tokenizer.as_deref();
                pack::pack_gguf(from, tokenizer, &self.to, options, &pool, &mut advance)
            }
            (Some(from), None, _) => {
                pack::pack_checkpoint(from, &self.to, options, &pool, &mut advance)
            }
            (None, _, size) => {
                let what = Synthetic {
                    size: size.unwrap_or(SyntheticSize::ALL[0]),
                    text_only: self.text_only,
                    drafter: self.with_drafter,
                    seed: self.seed,
                };
                pack::pack_synthetic(what, &self.to, options, &pool, &mut advance)
            }
        };
        bar.finish_and_clear();
        let packed = packed?;
        model_args::warn(packed.warning().as_slice());
        let manifest = packed.manifest;
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
