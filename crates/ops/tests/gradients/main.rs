//! Every operation's value and gradients, on odd shapes: the fast path against the plain reference, and against
//! finite differences of the reference in f64.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod attention;
mod check;
mod checkpoint;
mod choice;
mod conv;
mod disentangled;
mod distillation;
mod elementwise;
mod experts;
mod heads;
mod linear;
mod loss;
mod moves;
mod orthogonality;
mod regression;
mod relative;
mod rows;
