//! The `gemmad` command.

fn main() -> std::process::ExitCode {
    gemmad::cli::main()
}
