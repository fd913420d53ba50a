//! Writes the OpenAPI document of the API: what `cargo xtask openapi` puts into `functions/api/openapi.json`.
#![allow(clippy::print_stdout)] // It is what this is for.

fn main() {
    print!("{}", api::openapi::document());
}
