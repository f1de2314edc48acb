//! Bars of ratios, one below the other on one axis.
//!
//! Names and values are text beside the drawing and not in it: so they keep their size on a phone, where the drawing shrinks.

use crate::figure::Spread;

use super::super::text::{self, Escaped};
use super::scale::Scale;

/// One bar.
pub(in super::super) struct Bar<'a> {
    /// What it is of.
    pub(in super::super) name: &'a str,
    /// Whether it is of our own product.
    pub(in super::super) ours: bool,
    /// Whether it is what the others compare with.
    pub(in super::super) reference: bool,
    /// Its length, and its whisker.
    pub(in super::super) ratio: Spread,
    /// What limits its meaning.
    pub(in super::super) notes: &'a [String],
}

/// The bars in the order given. They begin at 0; on a logarithmic axis, which has none, at the reference.
pub(in super::super) fn bars(bars: &[Bar<'_>]) -> String {
    let ratios = bars.iter().flat_map(|bar| [bar.ratio.min, bar.ratio.median, bar.ratio.max]);
    let scale = Scale::of(ratios.chain([1.0]));
    let ticks = scale.ticks();
    let mut html = String::from("<div class=\"bars\">\n");
    for bar in bars {
        html.push_str(&row(bar, &scale, &ticks));
    }
    html.push_str(&axis(&scale, &ticks));
    html.push_str(if scale.logarithmic {
        "<p class=\"axis-name\">further right is better; logarithmic: equal distances are equal factors</p>\n"
    } else {
        "<p class=\"axis-name\">further right is better</p>\n"
    });
    html.push_str("</div>\n");
    html
}

fn row(bar: &Bar<'_>, scale: &Scale, ticks: &[f64]) -> String {
    let at = |value: f64| format!("{:.2}%", 100.0 * scale.place(value));
    let Spread { min, median, max, count } = bar.ratio;
    let base = scale.place(if scale.logarithmic { 1.0 } else { 0.0 });
    let end = scale.place(median);
    let class = if bar.ours {
        "bar ours"
    } else if bar.reference {
        "bar reference"
    } else {
        "bar"
    };
    let (middle, low, high) = (text::ratio(median), text::ratio(min), text::ratio(max));
    let told = format!(
        "{}: {middle} times the reference, {low} to {high} in {}",
        bar.name,
        text::plural(count, "round", "rounds")
    );
    let grid: String = ticks
        .iter()
        .map(|tick| format!("<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"100%\"/>", x = at(*tick)))
        .collect();
    let whisker = if max > min && !bar.reference {
        format!(
            "<g class=\"whisker\"><line x1=\"{low}\" x2=\"{high}\" y1=\"11\" y2=\"11\"/><line x1=\"{low}\" x2=\"{low}\" \
             y1=\"7\" y2=\"15\"/><line x1=\"{high}\" x2=\"{high}\" y1=\"7\" y2=\"15\"/></g>",
            low = at(min),
            high = at(max),
        )
    } else {
        String::new()
    };
    let value = if bar.reference {
        "<b>1×</b> <small>reference</small>".to_owned()
    } else {
        format!("<b>{middle}×</b> <small>{low}–{high}</small>")
    };
    let notes: String = bar.notes.iter().map(|note| format!(" <em class=\"note\">{}</em>", Escaped(note))).collect();
    format!(
        "<div class=\"{class}\"><span class=\"name\">{name}{notes}</span><span class=\"value\">{value}</span>\
         <svg width=\"100%\" height=\"22\" role=\"img\"><title>{told}</title>{grid}\
         <rect x=\"{x:.2}%\" width=\"{width:.2}%\" y=\"4\" height=\"14\" rx=\"1\"/>\
         <line class=\"one\" x1=\"{one}\" x2=\"{one}\" y1=\"0\" y2=\"100%\"/>{whisker}</svg></div>\n",
        name = Escaped(bar.name),
        told = Escaped(&told),
        x = 100.0 * base.min(end),
        width = 100.0 * (base - end).abs(),
        one = at(1.0),
    )
}

/// What the grid lines stand for.
fn axis(scale: &Scale, ticks: &[f64]) -> String {
    let mut labels = String::new();
    for tick in ticks {
        let place = scale.place(*tick);
        let anchor = match place {
            place if place < 0.03 => "start",
            place if place > 0.97 => "end",
            _ => "middle",
        };
        let label = text::short(*tick);
        labels
            .push_str(&format!("<text x=\"{:.2}%\" y=\"14\" text-anchor=\"{anchor}\">{label}×</text>", 100.0 * place));
    }
    let kind = if scale.logarithmic { "logarithmic" } else { "linear" };
    format!(
        "<div class=\"axis\"><svg width=\"100%\" height=\"18\" role=\"img\"><title>Axis: multiple of the reference, {kind}\
         </title>{labels}</svg></div>\n"
    )
}
