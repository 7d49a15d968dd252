//! Which vector instructions this CPU has, as a value that only the check itself can build.

use std::fmt;

/// Environment variable that forces one instruction set, by its [`Isa::name`].
pub const FORCE_VARIABLE: &str = "GEMMAD_ISA";

/// An instruction set that this CPU was seen to have.
///
/// Holding an `Isa` proves that its instructions may be executed here: every constructor asks the CPU. That is why the
/// kernels take one as an argument, and why their dispatch is sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isa(Level);

/// What an [`Isa`] stands for; ordered from the plainest to the most capable of its architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Level {
    /// Plain Rust: the reference that every other level is tested against.
    Scalar,
    /// Advanced SIMD of ARMv8.0 (Cortex-A53, A57, A72).
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// `Neon` and the 8-bit dot products `sdot`/`udot` (Cortex-A55, A76, A78).
    #[cfg(target_arch = "aarch64")]
    Dotprod,
    /// `Dotprod` and the 8-bit matrix products `smmla` (Cortex-A510, A710, X2, Neoverse V1).
    #[cfg(target_arch = "aarch64")]
    I8mm,
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, VL and DQ, beside all of `Avx2`.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// `Avx512` and the 8-bit dot products of AVX-512 VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

#[cfg(target_arch = "aarch64")]
const LEVELS: &[Level] = &[Level::Scalar, Level::Neon, Level::Dotprod, Level::I8mm];
#[cfg(target_arch = "x86_64")]
const LEVELS: &[Level] = &[Level::Scalar, Level::Avx2, Level::Avx512, Level::Avx512Vnni];
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
const LEVELS: &[Level] = &[Level::Scalar];

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Level::I8mm => "i8mm",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => "avx512vnni",
        }
    }

    fn on_this_cpu(self) -> bool {
        #[cfg(target_arch = "aarch64")]
        use std::arch::is_aarch64_feature_detected as has;
        #[cfg(target_arch = "x86_64")]
        use std::arch::is_x86_feature_detected as has;
        match self {
            Level::Scalar => true,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => has!("neon"),
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod => has!("neon") && has!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Level::I8mm => has!("neon") && has!("dotprod") && has!("i8mm"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => has!("avx2") && has!("fma") && has!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                Level::Avx2.on_this_cpu()
                    && has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512vl")
                    && has!("avx512dq")
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => Level::Avx512.on_this_cpu() && has!("avx512vnni"),
        }
    }
}

/// Why an instruction set asked for by name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// The name belongs to no instruction set of this build.
    #[error(
        "{FORCE_VARIABLE}={name}: no such instruction set in this build; it knows {known} (unset it to use the best one)"
    )]
    Unknown {
        /// The name as given.
        name: String,
        /// Every name that this build knows.
        known: String,
    },
    /// The name is known, but this CPU lacks the instructions.
    #[error(
        "{FORCE_VARIABLE}={name}: this CPU does not have these instructions; it has {available} (unset it to use the best one)"
    )]
    Unavailable {
        /// The name as given.
        name: String,
        /// Every name that this CPU can run.
        available: String,
    },
}

impl Isa {
    /// Plain Rust, available everywhere: the reference.
    pub fn scalar() -> Isa {
        Isa(Level::Scalar)
    }

    /// Every instruction set that this CPU can run, plainest first; never empty.
    pub fn available() -> Vec<Isa> {
        LEVELS
            .iter()
            .filter(|level| level.on_this_cpu())
            .map(|&level| Isa(level))
            .collect()
    }

    /// The most capable instruction set of this CPU.
    pub fn best() -> Isa {
        LEVELS
            .iter()
            .rev()
            .find(|level| level.on_this_cpu())
            .map_or(Isa::scalar(), |&level| Isa(level))
    }

    /// The instruction set called `name`.
    ///
    /// # Errors
    /// When no instruction set of this architecture is called so, or this CPU lacks it.
    pub fn by_name(name: &str) -> Result<Isa, IsaError> {
        let level = LEVELS.iter().find(|level| level.name() == name);
        let Some(&level) = level else {
            return Err(IsaError::Unknown {
                name: name.to_owned(),
                known: names(LEVELS.iter().copied()),
            });
        };
        if !level.on_this_cpu() {
            return Err(IsaError::Unavailable {
                name: name.to_owned(),
                available: names(Isa::available().into_iter().map(|isa| isa.0)),
            });
        }
        Ok(Isa(level))
    }

    /// The instruction set that `GEMMAD_ISA` names, or [`Isa::best`] when it is unset or empty.
    ///
    /// # Errors
    /// Those of [`Isa::by_name`].
    pub fn from_environment() -> Result<Isa, IsaError> {
        match std::env::var_os(FORCE_VARIABLE) {
            Some(name) if !name.is_empty() => Isa::by_name(&name.to_string_lossy()),
            _ => Ok(Isa::best()),
        }
    }

    /// Its name in lower case: `scalar`, `neon`, `dotprod`, `i8mm`, `avx2`, `avx512`, `avx512vnni`.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    pub(crate) fn level(self) -> Level {
        self.0
    }

    /// The instruction set whose integer products take so many tokens in the fewest instructions: itself, or one that this CPU has as well.
    ///
    /// `smmla` multiplies tokens by twos and its panels have four. Of few tokens that fill no panel, `sdot` takes each alone for less.
    pub(crate) fn for_tokens(self, tokens: usize) -> Isa {
        #[cfg(target_arch = "aarch64")]
        if self.0 == Level::I8mm && (2..8).contains(&tokens) && tokens != 4 {
            return Isa(Level::Dotprod);
        }
        let _ = tokens;
        self
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn names(levels: impl Iterator<Item = Level>) -> String {
    levels.map(Level::name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_is_the_last_available_one() {
        let available = Isa::available();
        assert_eq!(available.first(), Some(&Isa::scalar()));
        assert_eq!(available.last(), Some(&Isa::best()));
        for isa in available {
            assert_eq!(Isa::by_name(isa.name()), Ok(isa));
        }
    }

    #[test]
    fn a_wrong_name_is_told_with_the_right_ones() {
        let message = Isa::by_name("mmx").unwrap_err().to_string();
        assert!(
            message.contains("mmx") && message.contains("scalar"),
            "{message}"
        );
    }
}
