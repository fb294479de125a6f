package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/template"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider/helpers"
	"sigs.k8s.io/yaml"
)

var pods = schema.GroupResource{Resource: "pods"}

// adapter answers the metrics API with values of Prometheus: the rules of ../prometheus-adapter.yaml, for pods.
type adapter struct {
	cmd.AdapterBase
	// Queries by metric.
	queries    map[string]*template.Template
	prometheus prometheus.API
}

// rule is a rule of prometheus-adapter, as far as ../prometheus-adapter.yaml uses it.
type rule struct {
	SeriesQuery  string
	Name         struct{ As string }
	MetricsQuery string
}

// serveMetrics runs the adapter until its process ends.
func serveMetrics() error {
	a := &adapter{queries: map[string]*template.Template{}}
	a.Name = "metrics-adapter"
	address := a.Flags().String("prometheus-url", "http://127.0.0.1:9090", "address of Prometheus")
	rules := a.Flags().String("config", "", "values of the chart prometheus-adapter")
	if err := a.Flags().Parse(os.Args); err != nil {
		return err
	}
	client, err := api.NewClient(api.Config{Address: *address})
	if err != nil {
		return err
	}
	a.prometheus = prometheus.NewAPI(client)
	if err := a.read(*rules); err != nil {
		return err
	}
	a.WithCustomMetrics(a)
	return a.Run(context.Background())
}

func (a *adapter) read(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var values struct{ Rules struct{ Custom []rule } }
	if err := yaml.Unmarshal(text, &values); err != nil {
		return err
	}
	for _, rule := range values.Rules.Custom {
		series, _, _ := strings.Cut(rule.SeriesQuery, "{")
		query := strings.ReplaceAll(rule.MetricsQuery, "<<.Series>>", series)
		name := rule.Name.As
		if name == "" {
			name = series
		}
		if a.queries[name], err = template.New(name).Delims("<<", ">>").Parse(query); err != nil {
			return err
		}
	}
	return nil
}

// values returns the value of a metric for each named pod of which Prometheus has one.
func (a *adapter) values(ctx context.Context, namespace, metric string, names []string) (
	*custom_metrics.MetricValueList, error) {
	list := &custom_metrics.MetricValueList{}
	query, known := a.queries[metric]
	if !known || len(names) == 0 {
		return list, nil
	}
	var text strings.Builder
	matchers := fmt.Sprintf("namespace=%q,pod=~%q", namespace, strings.Join(names, "|"))
	if err := query.Execute(&text, map[string]string{"GroupBy": "pod", "LabelMatchers": matchers}); err != nil {
		return nil, err
	}
	found, _, err := a.prometheus.Query(ctx, text.String(), time.Now())
	if err != nil {
		return nil, err
	}
	vector, ok := found.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("%s is %s and no vector", text.String(), found.Type())
	}
	for _, sample := range vector {
		list.Items = append(list.Items, custom_metrics.MetricValue{
			DescribedObject: custom_metrics.ObjectReference{
				APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: string(sample.Metric["pod"]),
			},
			Metric:    custom_metrics.MetricIdentifier{Name: metric},
			Timestamp: metav1.NewTime(sample.Timestamp.Time()),
			Value:     *resource.NewMilliQuantity(int64(float64(sample.Value)*1000), resource.DecimalSI),
		})
	}
	return list, nil
}

func (a *adapter) GetMetricByName(ctx context.Context, name types.NamespacedName, info provider.CustomMetricInfo,
	_ labels.Selector) (*custom_metrics.MetricValue, error) {
	list, err := a.values(ctx, name.Namespace, info.Metric, []string{name.Name})
	if err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, provider.NewMetricNotFoundForError(info.GroupResource, info.Metric, name.Name)
	}
	return &list.Items[0], nil
}

func (a *adapter) GetMetricBySelector(ctx context.Context, namespace string, selector labels.Selector,
	info provider.CustomMetricInfo, _ labels.Selector) (*custom_metrics.MetricValueList, error) {
	client, err := a.DynamicClient()
	if err != nil {
		return nil, err
	}
	mapper, err := a.RESTMapper()
	if err != nil {
		return nil, err
	}
	names, err := helpers.ListObjectNames(mapper, client, namespace, selector, info)
	if err != nil {
		return nil, err
	}
	return a.values(ctx, namespace, info.Metric, names)
}

func (a *adapter) ListAllMetrics() []provider.CustomMetricInfo {
	infos := []provider.CustomMetricInfo{}
	for metric := range a.queries {
		infos = append(infos, provider.CustomMetricInfo{GroupResource: pods, Namespaced: true, Metric: metric})
	}
	return infos
}
