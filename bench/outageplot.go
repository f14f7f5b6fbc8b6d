package main

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const (
	plotWidth  = 9 * vg.Inch
	plotHead   = 74 * vg.Inch / 72
	panelTall  = 112 * vg.Inch / 72
	plotMargin = 10 * vg.Inch / 72
)

// plotOutage draws a panel for each contender, on the same axes: what reaches the dependency, and what succeeds.
func plotOutage(path, kind string, runs []*outageRun) error {
	var (
		reachedColor = color.NRGBA{0xd9, 0x5f, 0x02, 0xff}
		reachedFill  = color.NRGBA{0xfd, 0xd0, 0xa2, 0xff}
		goodColor    = color.NRGBA{0x00, 0x5f, 0x73, 0xff}
		outageColor  = color.NRGBA{0xe4, 0xe4, 0xe8, 0xff}
		plan         = runs[0].plan
		top          float64
		rows         [][]*plot.Plot
		legend       = plot.NewLegend()
	)
	for _, r := range runs {
		top = max(top, float64(worstSecond(r.reached)))
	}
	top *= 1.05
	for i, r := range runs {
		p := plot.New()
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, plan.total().Seconds(), 0, top
		p.Title.Text = fmt.Sprintf("%s: %d calls while it was down; %s", r.contender, r.whileDown, recoveryText(r))
		p.Y.Label.Text = "calls/s"
		if i == len(runs)-1 {
			p.X.Label.Text = "time in s"
		}
		from, to := plan.before.Seconds(), (plan.before + plan.down).Seconds()
		shade, err := plotter.NewPolygon(plotter.XYs{{X: from, Y: 0}, {X: to, Y: 0}, {X: to, Y: top}, {X: from, Y: top}})
		if err != nil {
			return err
		}
		shade.Color, shade.Width = outageColor, 0
		reached, err := plotter.NewLine(perSecond(r.reached))
		if err != nil {
			return err
		}
		reached.StepStyle, reached.FillColor, reached.Color = plotter.PostStep, reachedFill, reachedColor
		good, err := plotter.NewLine(perSecond(r.succeeded))
		if err != nil {
			return err
		}
		good.StepStyle, good.Color, good.Width = plotter.PostStep, goodColor, vg.Points(1.5)
		p.Add(shade, reached, good)
		trials, err := plotter.NewScatter(few(r.reached, top/100))
		if err != nil {
			return err
		}
		trials.Shape, trials.Color, trials.Radius = draw.CircleGlyph{}, reachedColor, vg.Points(2)
		p.Add(trials)
		p.X.Tick.Marker = plot.TickerFunc(halfMinutes)
		for _, text := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font} {
			sans(text, 9)
		}
		p.Title.TextStyle.Font.Size = vg.Points(10)
		p.Title.Padding = vg.Points(3)
		rows = append(rows, []*plot.Plot{p})
		if i == 0 {
			legend.Add("calls that reach the dependency", reached)
			legend.Add("few of them, as trials are", trials)
			legend.Add("calls that succeed", good)
			legend.Add("the dependency is down", shade)
		}
	}
	return drawPanels(path, fmt.Sprintf("%s: %d calls/s come before, in and after an outage of %.0f s", kind, plan.rate, plan.down.Seconds()), legend, rows)
}

func sans(f *font.Font, points float64) {
	f.Variant, f.Size = "Sans", vg.Points(points)
}

func recoveryText(r *outageRun) string {
	if !r.recovered {
		return "not recovered in the end"
	}
	return fmt.Sprintf("recovered %.1f s after its end", r.recovery.Seconds())
}

// perSecond is a line through the counts of each second.
func perSecond(counts []int) plotter.XYs {
	var line plotter.XYs
	for i := 0; i+ticksPerSecond <= len(counts); i += ticksPerSecond {
		sum := 0
		for _, n := range counts[i : i+ticksPerSecond] {
			sum += n
		}
		line = append(line, plotter.XY{X: float64(i / ticksPerSecond), Y: float64(sum)})
	}
	return line
}

// few are the seconds in which some calls were made, but so few that the line hides it.
func few(counts []int, limit float64) plotter.XYs {
	var points plotter.XYs
	for _, at := range perSecond(counts) {
		if at.Y > 0 && at.Y < limit {
			points = append(points, plotter.XY{X: at.X + 0.5, Y: at.Y})
		}
	}
	return points
}

func halfMinutes(low, high float64) []plot.Tick {
	var marks []plot.Tick
	for s := low; s <= high; s += 30 {
		marks = append(marks, plot.Tick{Value: s, Label: fmt.Sprint(s)})
	}
	return marks
}
