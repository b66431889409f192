//! Line charts as SVG: axes, lines, points that tell their values when pointed at, marks with labels
//! that keep out of each other's way.

use std::fmt::Write as _;

use super::{escape::escape, scale::Scale};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
/// Points get a dot where there are no more than this, so that they can be told apart.
const MANY_POINTS: usize = 70;
/// Height of a chart that shows one thing over another.
pub const HEIGHT: f64 = 320.0;
/// Colours that the style sheet knows.
pub const COLOURS: usize = 8;
/// About the width of a letter of a label.
const LETTER_WIDTH: f64 = 6.2;
const LABEL_HEIGHT: f64 = 15.0;

/// An axis.
pub struct Axis {
    /// What it shows, with the unit.
    pub label: &'static str,
    /// Where values lie.
    pub scale: Scale,
    /// How a tick is written.
    pub show: fn(f64) -> String,
}

/// A line.
#[derive(Debug)]
pub struct Line {
    /// In the legend.
    pub label: String,
    /// Which colour.
    pub colour: usize,
    /// (x, y, what to tell about it), from left to right.
    pub points: Vec<(f64, f64, String)>,
    /// How the points are joined.
    pub style: Style,
}

/// How the points of a line are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// By a line.
    Joined,
    /// By a line, and the space below is tinted.
    Filled,
    /// Not at all: nothing lies between them.
    Apart,
}

/// A point that matters.
#[derive(Debug)]
pub struct Mark {
    /// Where.
    pub x: f64,
    /// Where.
    pub y: f64,
    /// Why, if it is not clear without.
    pub label: String,
    /// Which colour.
    pub colour: usize,
}

/// A chart.
pub struct Chart {
    /// What it shows.
    pub title: &'static str,
    /// A sentence below the title.
    pub note: String,
    /// Of the drawing, where the width is 760.
    pub height: f64,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// Lines.
    pub lines: Vec<Line>,
    /// Points that matter.
    pub marks: Vec<Mark>,
    /// Part of the x axis that is set apart, and why.
    pub band: Option<(f64, f64, &'static str)>,
    /// A line across at a value of y, and what it is.
    pub rule: Option<(f64, String)>,
}

impl Chart {
    /// The chart with its title and legend, as a `section`.
    #[must_use]
    pub fn html(&self) -> String {
        let mut html = format!("<section class=\"chart\"><h2>{}</h2>", escape(self.title));
        if !self.note.is_empty() {
            let _ = write!(html, "<p class=\"note\">{}</p>", escape(&self.note));
        }
        if self.lines.len() > 1 {
            html.push_str("<ul class=\"legend\">");
            for line in &self.lines {
                let (colour, label) = (line.colour % COLOURS, escape(&line.label));
                let _ = write!(html, "<li><i class=\"b{colour}\"></i>{label}</li>");
            }
            html.push_str("</ul>");
        }
        let (title, height) = (escape(self.title), self.height);
        let _ = write!(
            html,
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">"
        );
        self.draw_band(&mut html);
        self.draw_axes(&mut html);
        self.draw_rule(&mut html);
        for line in &self.lines {
            self.draw_line(&mut html, line);
        }
        self.draw_marks(&mut html);
        html.push_str("</svg></section>");
        html
    }

    /// Where the x axis is.
    fn bottom(&self) -> f64 {
        self.height - BOTTOM
    }

    fn x(&self, value: f64) -> f64 {
        let place = self.x.scale.place(value).clamp(0.0, 1.0);
        LEFT + place * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let place = self.y.scale.place(value).clamp(0.0, 1.0);
        self.bottom() - place * (self.bottom() - TOP)
    }

    fn draw_axes(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, self.bottom());
        for tick in self.y.scale.ticks() {
            let shown = (self.y.show)(tick);
            let (y, label) = (self.y(tick), escape(&shown));
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        for tick in self.x.scale.ticks() {
            let shown = (self.x.show)(tick);
            let (x, label) = (self.x(tick), escape(&shown));
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 17.0
            );
        }
        let (middle_x, middle_y) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
        let (x_label, y_label) = (escape(self.x.label), escape(self.y.label));
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\
             <text class=\"label\" x=\"{middle_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_label}\
             </text><text class=\"label\" text-anchor=\"middle\" \
             transform=\"translate(13 {middle_y:.1})rotate(-90)\">{y_label}</text>",
            self.height - 8.0
        );
    }

    fn draw_band(&self, svg: &mut String) {
        let Some((from, until, label)) = self.band else {
            return;
        };
        let (x, end) = (self.x(from), self.x(until));
        let (width, height) = (end - x, self.bottom() - TOP);
        let _ = write!(
            svg,
            "<rect class=\"band\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{width:.1}\" \
             height=\"{height:.1}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 6.0,
            TOP + 14.0,
            escape(label)
        );
    }

    fn draw_rule(&self, svg: &mut String) {
        let Some((value, label)) = &self.rule else {
            return;
        };
        let (y, right) = (self.y(*value), WIDTH - RIGHT);
        let _ = write!(
            svg,
            "<path class=\"rule\" d=\"M{LEFT} {y:.1}H{right}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            right - 4.0,
            y - 5.0,
            escape(label)
        );
    }

    fn draw_line(&self, svg: &mut String, line: &Line) {
        let colour = line.colour % COLOURS;
        let mut path = String::new();
        for (index, (x, y, _)) in line.points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", self.x(*x), self.y(*y));
        }
        if let (Style::Filled, Some(first), Some(last)) =
            (line.style, line.points.first(), line.points.last())
        {
            let (from, until, bottom) = (self.x(first.0), self.x(last.0), self.bottom());
            let _ = write!(
                svg,
                "<path class=\"f{colour}\" d=\"{path}L{until:.1} {bottom}L{from:.1} {bottom}Z\"/>"
            );
        }
        if line.style != Style::Apart {
            let _ = write!(svg, "<path class=\"line s{colour}\" d=\"{path}\"/>");
        }
        let radius = if line.points.len() <= MANY_POINTS {
            "3"
        } else {
            "5"
        };
        // Of many points only the one that is pointed at shows.
        let class = if line.points.len() <= MANY_POINTS {
            "dot"
        } else {
            "dot quiet"
        };
        for (x, y, told) in &line.points {
            let _ = write!(
                svg,
                "<circle class=\"{class} b{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\">\
                 <title>{}</title></circle>",
                self.x(*x),
                self.y(*y),
                escape(told)
            );
        }
    }

    fn draw_marks(&self, svg: &mut String) {
        let mut taken: Vec<Space> = Vec::new();
        for mark in &self.marks {
            let (x, y, colour) = (self.x(mark.x), self.y(mark.y), mark.colour % COLOURS);
            let _ = write!(
                svg,
                "<circle class=\"ring s{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7.5\"/>"
            );
            if mark.label.is_empty() {
                continue;
            }
            let space = Space::beside(x, y, &mark.label, self.bottom(), &taken);
            let _ = write!(
                svg,
                "<text class=\"mark t{colour}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                space.x,
                space.y + LABEL_HEIGHT - 4.0,
                escape(&mark.label)
            );
            taken.push(space);
        }
    }
}

/// Room that a label takes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Space {
    x: f64,
    y: f64,
    width: f64,
}

impl Space {
    /// Room beside a point, where no other label is: left above it first, then around and away.
    fn beside(x: f64, y: f64, label: &str, bottom: f64, taken: &[Self]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "labels are short")]
        let width = label.chars().count() as f64 * LETTER_WIDTH;
        let sides = [-width - 12.0, 12.0, -width / 2.0];
        let heights = [-24.0, 10.0, -42.0, 28.0, -60.0, 46.0, -78.0, 64.0];
        let places = heights.iter().flat_map(|dy| {
            sides.iter().map(move |dx| Self {
                x: x + dx,
                y: y + dy,
                width,
            })
        });
        let fits = |space: &Self| {
            space.x >= LEFT + 4.0
                && space.x + width <= WIDTH
                && space.y >= 0.0
                && space.y + LABEL_HEIGHT <= bottom
        };
        let mut fitting = places.filter(fits).peekable();
        let first = fitting.peek().copied();
        let free = fitting.find(|space| !taken.iter().any(|other| space.overlaps(other)));
        let (x, y) = ((x - width).max(LEFT + 4.0), (y - 24.0).max(0.0));
        free.or(first).unwrap_or(Self { x, y, width })
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.x < other.x + other.width
            && other.x < self.x + self.width
            && (self.y - other.y).abs() < LABEL_HEIGHT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: f64) -> String {
        format!("{value}")
    }

    fn axis(label: &'static str) -> Axis {
        Axis {
            label,
            scale: Scale::Linear {
                from: 0.0,
                until: 10.0,
            },
            show: plain,
        }
    }

    fn chart(lines: Vec<Line>, marks: Vec<Mark>) -> Chart {
        Chart {
            title: "A <chart>",
            note: String::new(),
            height: 330.0,
            x: axis("across"),
            y: axis("up"),
            lines,
            marks,
            band: None,
            rule: None,
        }
    }

    #[test]
    fn a_line_runs_from_corner_to_corner() {
        let line = Line {
            label: "l".to_owned(),
            colour: 9,
            points: vec![(0.0, 0.0, "a & b".to_owned()), (10.0, 10.0, String::new())],
            style: Style::Joined,
        };
        let html = chart(vec![line], Vec::new()).html();
        assert!(
            html.contains("<path class=\"line s1\" d=\"M78.0 284.0L742.0 14.0\"/>"),
            "{html}"
        );
        assert!(html.contains("<title>a &amp; b</title>"), "{html}");
        assert!(html.contains("<h2>A &lt;chart&gt;</h2>"), "{html}");
        assert!(!html.contains("legend"), "one line needs none");
    }

    #[test]
    fn labels_of_marks_keep_apart() {
        let mut taken = Vec::new();
        for _ in 0..8 {
            let space = Space::beside(300.0, 150.0, "knee 123", 284.0, &taken);
            assert!(
                !taken.iter().any(|other| space.overlaps(other)),
                "{taken:?}"
            );
            taken.push(space);
        }
        let corner = Space::beside(LEFT, TOP, "knee 123", 284.0, &[]);
        assert!(corner.x >= LEFT && corner.y >= 0.0, "{corner:?}");
    }
}
