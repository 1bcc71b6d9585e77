//! The same program under the name that existing scripts use for its tools.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    mpcium_node::cli::main()
}
