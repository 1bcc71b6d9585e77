//! The program `mpcium`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    mpcium_node::cli::main()
}
