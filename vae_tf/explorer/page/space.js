// Arithmetic of z = origin + u axes[0] + v axes[1]; numbers are arrays.

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

// z [D] -> (u, v).
export function project(plane, z) {
  const apart = z.map((value, i) => value - plane.origin[i]);
  return plane.axes.map((axis) => dot(axis, apart));
}

// z moved within the plane to (u, v); what of it the plane does not have stays.
export function moved(plane, z, at) {
  const change = project(plane, z).map((value, i) => at[i] - value);
  return z.map((value, i) => value + change[0] * plane.axes[0][i] + change[1] * plane.axes[1][i]);
}

// Variances [D] of independent dimensions -> covariance of (u, v).
export function covariance(plane, variances) {
  return plane.axes.map((a) => plane.axes.map((b) =>
    variances.reduce((sum, variance, i) => sum + variance * a[i] * b[i], 0)));
}
