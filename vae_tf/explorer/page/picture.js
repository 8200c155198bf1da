// Images [H][W][C] in [0, 1], on canvases.

const byte = (value) => Math.round(255 * Math.min(1, Math.max(0, value ?? 0)));

function pixelsOf(image) {
  const height = image.length, width = image[0].length;
  const pixels = new ImageData(width, height);
  let place = 0;
  for (const row of image) {
    for (const pixel of row) {
      const grey = pixel.length < 3;
      for (let c = 0; c < 3; c++) pixels.data[place + c] = byte(grey ? pixel[0] : pixel[c]);
      pixels.data[place + 3] = 255;
      place += 4;
    }
  }
  return pixels;
}

export function paint(canvas, image) {
  const pixels = pixelsOf(image);
  if (canvas.width !== pixels.width || canvas.height !== pixels.height) {
    Object.assign(canvas, { width: pixels.width, height: pixels.height });
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// A sheet of several, `columns` wide, a pixel between two.
export function clearSheet(canvas, shape, columns, rows) {
  const [height, width] = shape;
  canvas.width = columns * (width + 1) - 1;
  canvas.height = rows * (height + 1) - 1;
}

export function paintOnSheet(canvas, image, column, row) {
  canvas.getContext("2d").putImageData(
    pixelsOf(image), column * (image[0].length + 1), row * (image.length + 1));
}

export function paintSheet(canvas, images, columns) {
  const shape = [images[0].length, images[0][0].length];
  clearSheet(canvas, shape, columns, Math.ceil(images.length / columns));
  images.forEach((image, i) => paintOnSheet(canvas, image, i % columns, Math.floor(i / columns)));
}

// Nats of each pixel, summed over channels, from black through red and yellow to
// white; returns the least and the most.
export function paintNats(canvas, nats) {
  const costs = nats.map((row) => row.map((pixel) => pixel.reduce((a, b) => a - b, 0)));
  let most = 1e-9, least = 0;
  for (const cost of costs.flat()) [most, least] = [Math.max(most, cost), Math.min(least, cost)];
  paint(canvas, costs.map((row) => row.map((cost) => {
    const t = (cost - least) / (most - least);
    return [Math.min(1, 2.2 * t), Math.min(1, Math.max(0, 2 * t - 0.6)), Math.max(0, 3 * t - 2)];
  })));
  return [least, most];
}

export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function saveCanvas(name, canvas) {
  canvas.toBlob((blob) => save(name, blob));
}
