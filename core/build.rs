//! `MPCIUM_PLANTED_BUGS=1` compiles the planted bugs in (`src/planted.rs`). A variable and not a feature: features add
//! up across a workspace, so one that plants bugs could reach the product by accident; and a variable rebuilds nothing
//! but this crate and what stands on it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MPCIUM_PLANTED_BUGS");
    if std::env::var_os("MPCIUM_PLANTED_BUGS").is_some_and(|value| value == "1") {
        println!("cargo:rustc-cfg=planted_bugs");
    }
}
