package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/breakwater-go/breakwater/shopify/shopifytest"
)

// plotQuota draws a panel for each way: the points that were used, of those that were restored, and the throttled answers.
func plotQuota(path string, runs []*quotaRun) error {
	var (
		usedColor      = color.NRGBA{0x00, 0x5f, 0x73, 0xff}
		throttledColor = color.NRGBA{0xd9, 0x5f, 0x02, 0xff}
		restoredColor  = color.NRGBA{0x99, 0x99, 0x99, 0xff}
		rows           [][]*plot.Plot
		legend         = plot.NewLegend()
	)
	const top = 300.0 // what is above is cut, and its number is in the title
	for i, r := range runs {
		p := plot.New()
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, float64(len(r.points)), 0, top
		p.Title.Text = fmt.Sprintf("%s: %d throttled answers, %.0f %% of the quota used; p99 of waits %.1f s, interactive %.1f s", r.Way, r.Throttled, 100*r.Used, r.Background, r.Interactive)
		p.Y.Label.Text = "a second"
		if i == len(runs)-1 {
			p.X.Label.Text = "time in s"
		}
		used, err := plotter.NewLine(capped(r.points, top))
		if err != nil {
			return err
		}
		used.StepStyle, used.Color, used.Width = plotter.PostStep, usedColor, vg.Points(1.5)
		throttled, err := plotter.NewLine(capped(r.throttled, top))
		if err != nil {
			return err
		}
		throttled.StepStyle, throttled.Color, throttled.Width = plotter.PostStep, throttledColor, vg.Points(1.5)
		rate := shopifytest.Standard.PointsPerSecond
		restored, err := plotter.NewLine(plotter.XYs{{X: 0, Y: rate}, {X: float64(len(r.points)), Y: rate}})
		if err != nil {
			return err
		}
		restored.Color, restored.Dashes = restoredColor, []vg.Length{vg.Points(4), vg.Points(3)}
		p.Add(restored, used, throttled)
		for _, text := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font} {
			sans(text, 9)
		}
		p.Title.TextStyle.Font.Size = vg.Points(10)
		p.Title.Padding = vg.Points(3)
		rows = append(rows, []*plot.Plot{p})
		if i == 0 {
			legend.Add("points used", used)
			legend.Add("points restored", restored)
			legend.Add("throttled answers", throttled)
		}
	}
	title := fmt.Sprintf("%d processes with %d callers each want more than a shop's bucket restores", quotaProcesses, quotaWorkers)
	return drawPanels(path, title, legend, rows)
}

func capped(values []float64, top float64) plotter.XYs {
	line := make(plotter.XYs, len(values))
	for i, v := range values {
		line[i] = plotter.XY{X: float64(i), Y: min(v, top)}
	}
	return line
}

// drawPanels writes panels beneath each other, with a title and a legend above them.
func drawPanels(path, title string, legend plot.Legend, rows [][]*plot.Plot) error {
	c := vgsvg.New(plotWidth, plotHead+panelTall*vg.Length(len(rows)))
	dc := draw.New(c)
	dc.SetColor(color.White)
	dc.Fill(dc.Path())

	style := draw.TextStyle{Color: color.Black, Font: plot.DefaultFont, Handler: plot.DefaultTextHandler, YAlign: draw.YTop}
	sans(&style.Font, 13)
	dc.FillText(style, vg.Point{X: dc.Min.X + plotMargin, Y: dc.Max.Y - plotMargin}, title)
	sans(&legend.TextStyle.Font, 9)
	legend.Top, legend.Left, legend.Padding = true, true, vg.Points(2)
	legend.ThumbnailWidth = vg.Points(20)
	legend.Draw(draw.Crop(dc, plotMargin, 0, dc.Max.Y-dc.Min.Y-plotHead, -plotMargin-vg.Points(16)))

	body := draw.Crop(dc, plotMargin, -plotMargin, 0, -plotHead)
	tiles := draw.Tiles{Rows: len(rows), Cols: 1, PadY: vg.Points(4), PadBottom: vg.Points(4)}
	for i, canvases := range plot.Align(rows, tiles, body) {
		rows[i][0].Draw(canvases[0])
	}
	var svg bytes.Buffer
	if _, err := c.WriteTo(&svg); err != nil {
		return err
	}
	// Whoever lacks the font has another that is as wide.
	text := bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return os.WriteFile(path, text, 0o600)
}
