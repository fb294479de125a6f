/** The part of jstat that is used; it brings no types. */
declare module "jstat" {
  const jstat: { studentt: { inv(p: number, degreesOfFreedom: number): number } };
  export default jstat;
}
