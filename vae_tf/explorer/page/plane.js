// The latent plane: points, contours, the prior, and what is pointed at.

const CLASSES = { // Tol's muted scheme, and on black his light one
  light: ["#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499", "#555555"],
  dark: ["#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#aaaa00", "#dddddd", "#cc99ff"],
};
const NEAR = 12; // pixels from a point that is meant
const dark = matchMedia("(prefers-color-scheme: dark)");

export const colourOf = (index) => {
  const colours = CLASSES[dark.matches ? "dark" : "light"];
  return colours[index % colours.length];
};

export class Plane {
  constructor(canvas, { onMove, onLeave, onChoose }) {
    Object.assign(this, { canvas, onMove, onLeave, onChoose, at: [0, 0], marks: {}, kind: "means" });
    this.base = document.createElement("canvas");
    new ResizeObserver(() => this.resize()).observe(canvas);
    dark.addEventListener("change", () => this.resize());
    // A mouse that only passes is followed until it leaves; where it is pressed,
    // a finger and keys stay.
    const stays = (event) => event.type === "pointerdown" || event.pointerType !== "mouse";
    const follow = (event) => this.data && this.move(this.where(event), stays(event));
    canvas.addEventListener("pointermove", follow);
    canvas.addEventListener("pointerdown", (event) => {
      canvas.focus({ preventScroll: true });
      follow(event);
    });
    canvas.addEventListener("pointerleave", (event) => this.data && !stays(event) && this.onLeave());
    canvas.addEventListener("click", (event) => this.data && this.choose(this.where(event), NEAR));
    canvas.addEventListener("keydown", (event) => this.data && this.walk(event));
  }

  set(data, classes, isNormal) {
    Object.assign(this, { data, classes, isNormal });
    this.resize();
  }

  setMarks(marks) {
    Object.assign(this.marks, marks);
    this.draw();
  }

  points() {
    return (this.kind === "samples" && this.data.samples) || this.data.means;
  }

  // Where v is nothing (one dimension), points are spread by their number.
  placed(point, index) {
    const height = this.flat ? (((index * 0.618) % 1) - 0.5) * 1.6 * this.data.limit : point[1];
    return [point[0], height];
  }

  get flat() {
    return this.data.axes[1].every((value) => value === 0);
  }

  where(event) {
    const box = this.canvas.getBoundingClientRect();
    const { limit } = this.data;
    return [
      limit * (2 * (event.clientX - box.left) / box.width - 1),
      limit * (1 - 2 * (event.clientY - box.top) / box.height),
    ];
  }

  pixel([u, v]) {
    const { limit } = this.data;
    return [(u / limit + 1) * this.canvas.width / 2, (1 - v / limit) * this.canvas.height / 2];
  }

  move(at, stays) {
    this.at = at.map((value) => Math.max(-this.data.limit, Math.min(this.data.limit, value)));
    this.place();
    this.onMove(this.at, stays);
  }

  choose(at, near) {
    const scale = this.canvas.clientWidth / (2 * this.data.limit);
    let best = -1, least = near;
    this.points().forEach((point, index) => {
      const [u, v] = this.placed(point, index);
      const far = Math.hypot(u - at[0], v - at[1]) * scale;
      if (far < least) [best, least] = [index, far];
    });
    if (best >= 0) this.onChoose(best);
  }

  walk(event) {
    const step = this.data.limit / (event.shiftKey ? 10 : 60);
    const [u, v] = this.at;
    const steps = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key in steps) {
      event.preventDefault();
      this.move([u + steps[event.key][0], v + steps[event.key][1]], true);
    } else if (event.key === "Enter") {
      this.choose(this.at, Infinity);
    }
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    const side = Math.round(this.canvas.clientWidth * ratio);
    if (!this.data || !side) return;
    for (const canvas of [this.canvas, this.base]) Object.assign(canvas, { width: side, height: side });
    this.ratio = ratio;
    this.drawBase();
    this.draw();
  }

  drawBase() {
    const context = this.base.getContext("2d");
    const style = getComputedStyle(this.canvas);
    const [ink, faint] = ["--quiet", "--faint"].map((name) => style.getPropertyValue(name));
    const { data, ratio } = this;
    context.clearRect(0, 0, this.base.width, this.base.height);
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    context.fillStyle = context.strokeStyle = faint;
    context.lineWidth = ratio;
    const unit = this.base.width / (2 * data.limit);
    const [x, y] = this.pixel(data.middle_of_prior);
    if (this.isNormal && !this.flat) {
      for (const radius of [1, 2, 3]) {
        context.beginPath();
        context.arc(x, y, radius * unit, 0, 2 * Math.PI);
        context.stroke();
        context.fillStyle = ink;
        context.fillText(`${radius} sd`, x + 3 * ratio, y - radius * unit - 3 * ratio);
      }
    } else if (!this.isNormal) {
      data.prior.forEach((point, index) => {
        const [px, py] = this.pixel(this.placed(point, index));
        context.fillText("+", px - 3 * ratio, py + 3 * ratio);
      });
    }
    context.globalAlpha = 0.75;
    this.points().forEach((point, index) => {
      const label = data.labels ? this.classes.indexOf(data.labels[index]) : 0;
      context.fillStyle = colourOf(label);
      const [px, py] = this.pixel(this.placed(point, index));
      context.fillRect(px - 1.5 * ratio, py - 1.5 * ratio, 3 * ratio, 3 * ratio);
    });
    context.globalAlpha = 1;
    context.strokeStyle = ink;
    for (const { lines } of data.contours) {
      for (const line of lines) this.line(context, line);
    }
  }

  line(context, points) {
    context.beginPath();
    points.forEach((point, index) => {
      context[index ? "lineTo" : "moveTo"](...this.pixel(point));
    });
    context.stroke();
  }

  draw() {
    if (!this.data || !this.ratio) return;
    const context = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    const mark = style.getPropertyValue("--mark");
    const { ratio, marks } = this;
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.base, 0, 0);
    context.font = `bold ${13 * ratio}px system-ui, sans-serif`;
    context.fillStyle = context.strokeStyle = mark;
    context.lineWidth = 1.5 * ratio;
    for (const point of marks.draws ?? []) this.dot(context, point, 2).fill();
    for (const point of marks.prior ?? []) this.dot(context, point, 4).stroke();
    if (marks.ellipse) this.ellipse(context, marks.ellipse);
    if (marks.way) this.line(context, marks.way);
    for (const name of ["A", "B"]) {
      if (!marks[name]) continue;
      const [x, y] = this.pixel(marks[name]);
      this.dot(context, marks[name], 4).fill();
      context.fillText(name, x + 6 * ratio, y - 6 * ratio);
    }
    this.place();
  }

  // The cross is no part of the drawing: a move draws nothing anew.
  place() {
    if (!this.data || !this.ratio) return;
    const [x, y] = this.pixel(this.flat ? [this.at[0], 0] : this.at);
    this.canvas.nextElementSibling.style.transform = `translate(${x / this.ratio}px, ${y / this.ratio}px)`;
  }

  dot(context, point, radius) {
    const [x, y] = this.pixel(point);
    context.beginPath();
    context.arc(x, y, radius * this.ratio, 0, 2 * Math.PI);
    return context;
  }

  // Two standard deviations of a Gaussian of this mean and covariance.
  ellipse(context, { mean, covariance: [[a, b], [, c]] }) {
    const middle = (a + c) / 2, apart = Math.hypot((a - c) / 2, b);
    const angle = Math.atan2(b, (a - c) / 2) / 2;
    const unit = this.canvas.width / (2 * this.data.limit);
    const [x, y] = this.pixel(mean);
    const radii = [middle + apart, Math.max(0, middle - apart)].map((s) => Math.max(2, 2 * unit * Math.sqrt(s)));
    context.beginPath();
    context.ellipse(x, y, ...radii, -angle, 0, 2 * Math.PI);
    context.stroke();
  }
}
