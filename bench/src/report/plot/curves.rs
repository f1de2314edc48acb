//! Curves: a figure against a place on an axis, a line for each system, with a band from the smallest to the largest.

use crate::figure::Spread;

use super::super::text::{self, Escaped};
use super::scale::Scale;

/// Size of a drawing, and the room around its axes, in units that are pixels on a phone.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 224.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 24.0;
/// Less room between the labels of the x axis, and one of them is left out.
const LABEL_GAP: f64 = 8.0;
/// Of more places than this only the line is drawn: points would cover it.
const POINTS_MAX: usize = 20;
/// About how wide a letter of a label is.
const LETTER: f64 = 6.5;

/// By what a system is told from others, in all plots of a report: a colour and the shape of its points, so that it works without
/// colours as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Mark {
    /// Whether it is our own product.
    pub(in super::super) ours: bool,
    /// Which of ours, or which of the others.
    pub(in super::super) number: usize,
}

/// How many colours the style sheet knows for ours and for the others.
const COLOURS_OURS: usize = 3;
const COLOURS_OTHERS: usize = 6;

/// The line of one system.
pub(in super::super) struct Curve<'a> {
    /// The system.
    pub(in super::super) name: &'a str,
    /// How it looks.
    pub(in super::super) mark: Mark,
    /// For each place of the plot, the figure, if there is one there, and whether it is to be relied on.
    pub(in super::super) points: Vec<Option<(Spread, bool)>>,
}

/// One plot.
pub(in super::super) struct Plot<'a> {
    /// What it shows, for those who do not see it.
    pub(in super::super) title: String,
    /// What the x axis is.
    pub(in super::super) axis: &'a str,
    /// The places on the x axis, rising.
    pub(in super::super) places: &'a [f64],
    /// The lines; later ones are drawn over earlier ones.
    pub(in super::super) curves: Vec<Curve<'a>>,
}

impl Mark {
    /// The class with its colour.
    fn class(self) -> String {
        if self.ours {
            format!("curve ours o{}", self.number % COLOURS_OURS)
        } else {
            format!("curve r{}", self.number % COLOURS_OTHERS)
        }
    }

    /// A point at a place, in the shape of the system.
    fn point(self, x: f64, y: f64, relied: bool) -> String {
        let class = if relied { "point" } else { "point hollow" };
        // Shapes come round after as many as are odd to the number of colours, so that colour and shape together repeat late.
        let shape = match self.number % 7 {
            0 => return format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"),
            1 => "-3.2,-3.2 3.2,-3.2 3.2,3.2 -3.2,3.2",
            2 => "0,-4.4 4.2,3.3 -4.2,3.3",
            3 => "0,-4.8 4.8,0 0,4.8 -4.8,0",
            4 => "0,4.4 4.2,-3.3 -4.2,-3.3",
            5 => {
                "-1.5,-4.5 1.5,-4.5 1.5,-1.5 4.5,-1.5 4.5,1.5 1.5,1.5 1.5,4.5 -1.5,4.5 -1.5,1.5 -4.5,1.5 -4.5,-1.5 -1.5,-1.5"
            }
            _ => "-4.6,-2 4.6,-2 4.6,2 -4.6,2",
        };
        format!("<polygon class=\"{class}\" transform=\"translate({x:.1} {y:.1})\" points=\"{shape}\"/>")
    }
}

/// Which line is whose.
pub(in super::super) fn legend<'a>(systems: impl IntoIterator<Item = (&'a str, Mark)>) -> String {
    let mut html = String::from("<ul class=\"legend\">\n");
    for (name, mark) in systems {
        html.push_str(&format!(
            "<li{strong}><svg width=\"34\" height=\"14\" aria-hidden=\"true\"><g class=\"{class}\">\
             <path class=\"line\" d=\"M1 7H33\"/>{point}</g></svg>{name}</li>\n",
            strong = if mark.ours { " class=\"ours\"" } else { "" },
            class = mark.class(),
            point = mark.point(17.0, 7.0, true),
            name = Escaped(name),
        ));
    }
    html.push_str("</ul>\n");
    html
}

impl Plot<'_> {
    /// Whether equal distances upwards are equal factors.
    pub(in super::super) fn is_logarithmic(&self) -> bool {
        self.upwards().logarithmic
    }

    fn upwards(&self) -> Scale {
        let points = self.curves.iter().flat_map(|curve| curve.points.iter().flatten());
        Scale::of(points.flat_map(|(spread, _)| [spread.min, spread.median, spread.max]))
    }

    /// The drawing.
    pub(in super::super) fn svg(&self) -> String {
        let y = self.upwards();
        let x = Scale::across(self.places);
        let kind = if y.logarithmic { ", on a logarithmic axis" } else { "" };
        let mut svg = format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>{}</title><desc>{} against {}{kind}: {}. \
             The table below has the same numbers.</desc>\n",
            Escaped(&self.title),
            Escaped(&self.title),
            Escaped(self.axis),
            Escaped(&text::list(&self.curves.iter().map(|curve| curve.name).collect::<Vec<_>>())),
        );
        svg.push_str(&self.axes(&x, &y));
        for curve in &self.curves {
            svg.push_str(&curve.svg(self.places, &x, &y));
        }
        svg.push_str("</svg>\n");
        // As text of the page it may be of any length.
        svg.push_str(&format!("<p class=\"axis-name\">{}</p>\n", Escaped(self.axis)));
        svg
    }

    fn axes(&self, x: &Scale, y: &Scale) -> String {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut svg = String::new();
        for tick in y.ticks() {
            let at = across_y(y, tick);
            svg.push_str(&format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                LEFT - 7.0,
                at + 4.0,
                text::short(tick),
            ));
        }
        svg.push_str(&format!("<line class=\"base\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\n"));
        let mut free = f64::NEG_INFINITY;
        for place in self.places {
            let (at, label) = (across_x(x, *place), text::short(*place));
            svg.push_str(&format!(
                "<line class=\"base\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{}\"/>",
                bottom + 4.0
            ));
            let half = LETTER * label.chars().count() as f64 / 2.0;
            if at - half >= free {
                svg.push_str(&format!(
                    "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>\n",
                    bottom + 17.0
                ));
                free = at + half + LABEL_GAP;
            }
        }
        svg
    }
}

impl Curve<'_> {
    fn svg(&self, places: &[f64], x: &Scale, y: &Scale) -> String {
        let mut svg = format!("<g class=\"{}\"><title>{}</title>", self.mark.class(), Escaped(self.name));
        let points: Vec<Option<(f64, Spread, bool)>> = places
            .iter()
            .zip(&self.points)
            .map(|(place, point)| point.map(|(spread, relied)| (across_x(x, *place), spread, relied)))
            .collect();
        // A place without a figure parts the line: nobody knows how it goes there.
        for run in points.split(Option::is_none) {
            let run: Vec<&(f64, Spread, bool)> = run.iter().flatten().collect();
            let path = |at: &dyn Fn(&Spread) -> f64| -> Vec<String> {
                run.iter().map(|(x, spread, _)| format!("{x:.1} {:.1}", across_y(y, at(spread)))).collect()
            };
            if run.len() > 1 {
                let (upper, mut lower) = (path(&|spread| spread.max), path(&|spread| spread.min));
                lower.reverse();
                svg.push_str(&format!("<path class=\"band\" d=\"M{}L{}Z\"/>", upper.join("L"), lower.join("L")));
                svg.push_str(&format!("<path class=\"line\" d=\"M{}\"/>", path(&|spread| spread.median).join("L")));
            }
            let dense = self.points.len() > POINTS_MAX && run.len() > 1;
            for (x, spread, relied) in run.into_iter().filter(|(.., relied)| !(dense && *relied)) {
                svg.push_str(&self.mark.point(*x, across_y(y, spread.median), *relied));
            }
        }
        svg.push_str("</g>\n");
        svg
    }
}

fn across_x(scale: &Scale, value: f64) -> f64 {
    // A little room on both sides, so that no point lies on the axis.
    LEFT + 8.0 + (WIDTH - LEFT - RIGHT - 16.0) * scale.place(value)
}

fn across_y(scale: &Scale, value: f64) -> f64 {
    HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * scale.place(value)
}
