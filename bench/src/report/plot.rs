//! Plots as HTML with SVG inside: bars of ratios, and curves.
//!
//! Colours come from the style sheet of the page, by classes: they differ in light and dark.

mod bars;
mod curves;
mod scale;

pub(super) use bars::{Bar, bars};
pub(super) use curves::{Curve, Mark, Plot, legend};
